"""Arguments to settings and to the parameters of a command, by tyro."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro
from rich.console import Console, RenderableType
from rich.text import Text
from tyro.conf import arg

from tag2mask.config import Config, DataSettings, Settings
from tag2mask.config_files import base_config, changed_config
from tag2mask.errors import ConfigError
from tag2mask.progress import printable

ABOUT = {
    "clusters": "group the tags",
    "classifier": "train the patch classifier on photos and tags",
    "masks": "write pseudo masks of the training photos",
    "segmenter": "train the segmenter on photos and pseudo masks",
    "evaluate": "compute metrics, if there are true masks",
    "report": "write the report page",
}
# The settings with which tags are read, and what each stage reads: settings, or sections of them.
READING = tuple(
    f"photos.{name}" for name in DataSettings.model_fields if name not in ("workers", "pseudo_list")
)
COMMON = ("data", "out", "recipe", "seed", *READING)
TRUTH = ("val", "val_masks", "evaluate.classes")
STAGE_READS = {
    "clusters": (*COMMON, "clusters"),
    "classifier": (*COMMON, *TRUTH, "photos.workers", "classifier"),  # it checks the data first
    "masks": (*COMMON, "masks"),
    "segmenter": (*COMMON, "photos.workers", "segmenter"),
    "evaluate": (
        *(*COMMON, *TRUTH, "photos.pseudo_list", "evaluate"),
        *(f"segmenter.{name}" for name in ("test_scales", "flip", "object_first", "crf")),
    ),
    "report": (*COMMON, *TRUTH, "report"),
}


def default_text(text: str) -> str:
    """The end of an option's help: its default, if it has one."""
    return f"(default: {text})" if text not in ("None", "") else ""


PathOption = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint=default_text)]


def show(*lines: RenderableType) -> None:
    """Print lines, or tables and trees of rich, to stdout."""
    for line in lines:
        shown = Text(printable(line)) if isinstance(line, str) else line
        Console().print(shown, soft_wrap=True)


def print_error(message: str) -> None:
    """Print a message to stderr."""
    print(f"tag2mask: {printable(message)}", file=sys.stderr)


def parse(
    target: Any, command: str, argv: list[str], about: str | None = None, options: Any = None
) -> Any:
    """Call a function, or make a dataclass, with the arguments. tyro exits if one is wrong.

    `options`: a dataclass instance; its fields are options too, and the function gets it changed
    as its last parameter, `options`.
    """
    if options is not None:
        target.__annotations__["options"] = Annotated[type(options), arg(name="")]
        target.__defaults__ = (*(target.__defaults__ or ())[:-1], options)
    try:
        config = (tyro.conf.PositionalMetavarFromFieldName,)
        prog = f"tag2mask {command}"
        return tyro.cli(target, args=argv, prog=prog, description=about, config=config)
    except SystemExit as stop:
        if stop.code and command == "demo" and any(w.startswith(("--data", "--val")) for w in argv):
            raise ConfigError(
                "the demo makes its own photos; for yours, use `tag2mask run`"
            ) from None
        if stop.code and "--device" in argv:
            print_error("a GPU is used if there is one; CUDA_VISIBLE_DEVICES= selects the CPU")
        if (
            stop.code
            and command in ("run", "tags", "check", "convert", *ABOUT)
            and argv
            and not argv[0].startswith("-")
        ):
            print_error(f"give photos by name: tag2mask {command} --data {argv[0]}")
        for option, word in pairwise(argv if stop.code else ()):
            if word in ("true", "false") and option.startswith("--"):
                print_error(f"write {option} or its opposite, --no-...; they take no value")
        sections = {word[2:].partition(".")[0] for word in argv if word.startswith("--")}
        for section in sections & ABOUT.keys() if stop.code and command in ABOUT else ():
            if section not in STAGE_READS[command]:
                print_error(f"settings of {section} belong to `tag2mask {section}`, or to `run`")
        raise


def make_options(settings: Settings, names: Sequence[str] | None = None, start: str = "") -> Any:
    """Settings, or those of these names, as a dataclass instance: tyro makes options of its fields.

    They are not validated here, but later as settings, whose errors are sentences.
    """
    fields = []
    hints = get_type_hints(type(settings))  # without the limits
    for name, info in type(settings).model_fields.items():
        inner = [n.partition(".")[2] for n in names or () if n.partition(".")[0] == name]
        if names is not None and not inner:
            continue
        value, hint = getattr(settings, name), hints[name]
        more: dict[str, Any] = {"help_behavior_hint": default_text}
        if isinstance(value, Settings):
            part = inner if inner and all(inner) else None
            value = make_options(value, part, f"{start}{name}.")
            hint = type(value)
        elif type(None) in (types := get_args(hint)):
            more["metavar"] = "PATH|None" if Path in types else "STR|None"
        elif words := [word for kind in types for word in get_args(kind)]:  # number or word
            more["metavar"] = "|".join(["INT" if int in types else "FLOAT", *words])
            hint, value = str, str(value)
        if f"{start}{name}" == "clusters.source":
            more["name"] = ""  # --clusters voc
        help_text = " ".join((info.description or "").split()) or None
        fields.append((name, Annotated[hint, arg(help=help_text, **more)], field(default=value)))
    namespace = {"__doc__": type(settings).__doc__}
    return make_dataclass(type(settings).__name__, fields, frozen=True, namespace=namespace)()


def parse_reading(target: Callable[..., None], command: str, argv: list[str]) -> None:
    """Call a function that reads a data set: --photos.* are its options."""
    parse(target, command, argv, options=make_options(Config(), READING))


@dataclass
class Named:
    """The arguments that say which settings the others change."""

    out: Path | None = None
    recipe: str | None = None
    preset: str = "vit_pcm"


def named_settings(argv: list[str]) -> Named:
    """The arguments that say which settings the others change. The rest is ignored."""
    return tyro.cli(Named, args=argv, return_unknown_args=True, add_help=False)[0]


def parse_config(argv: list[str], command: str = "run") -> Config:
    """Settings from the arguments of `run`, of `demo` or of a stage. Raises ConfigError."""
    base, options, about = config_options(argv, command)
    return changed_config(base, asdict(parse(type(options), command, argv, about)))


def config_options(argv: list[str], command: str) -> tuple[Config, Any, str]:
    """The arguments of a command to the settings that they change, the options that they can be,
    see `make_options`, and what the help says first. Raises ConfigError."""
    named = named_settings(argv)
    base = base_config(named.out, named.recipe)
    own = {"data", "val", "val_masks"} if command == "demo" else set()
    names = STAGE_READS.get(command) or [name for name in Config.model_fields if name not in own]
    options = make_options(base, names)
    stored = not named.recipe and named.out and (named.out / "config.toml").exists()
    origin = named.out if stored else f"the recipe {base.recipe}"
    verb = "draw scenes and run all stages on them" if command == "demo" else "run all stages"
    about = f"{ABOUT.get(command, verb).capitalize()}. Defaults: those of {origin}."
    if command == "clusters":
        about += " Cluster files: tag2mask clusters make | show | replay | stability --help."
    return base, options, about
