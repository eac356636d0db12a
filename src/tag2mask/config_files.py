"""Settings from recipes and TOML files, from dictionaries and from model files, and back to TOML.

A wrong setting is a ConfigError that names the setting, its value and the nearest right name.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import ValidationError

from tag2mask.config import Config, Settings
from tag2mask.errors import ConfigError, RunError
from tag2mask.files import is_address, write_text

RECIPES = Path(__file__).parent / "recipes"
PATH_OR_WORD = {"source", "weights", "classes"}  # these settings hold a word or the name of a file
SECTIONS = {
    name: field.default
    for name, field in Config.model_fields.items()
    if isinstance(field.default, Settings)
}
# Settings of tag2mask 0.1 under other names, and those of their values that have changed.
OLD_NAMES = {
    "classifier.pooling": "classifier.tag_loss",
    "masks.labels": "masks.scores",
    "masks.background": "masks.threshold",
    "segmenter.test_size": "segmenter.image_size",
    "report.photos": "report.photos_per_split",
    "photos.numbering": "evaluate.classes",
}
OLD_VALUES = {"plain": "softmax", "mask": "softmax_of_tags", "evidence": "logits"}  # masks.labels
# What pydantic expects, in our words: by the kind of fault, or word by word in this order.
LIMITS = {
    "path_type": "a path",
    "missing": "a list of more values",
    "too_long": "a list of fewer values",
    "tuple_type": "a list",
    "int_from_float": "an integer",
}
SHORTER = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "a valid ": "a ",
    "a integer": "an integer",
}

Stored = TypeVar("Stored", bound=Settings)


# ---- recipes and run folders ---------------------------------------------------------------------


def recipes() -> dict[str, str]:
    """Names of the recipes of tag2mask, each with the first line of its file: what it is for."""
    paths = sorted(RECIPES.glob("*.toml"), key=lambda path: (path.stem != "photos", path.stem))
    return {p.stem: p.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for p in paths}


def load_recipe(name: str) -> Config:
    """Settings of a recipe, given by name or as a TOML file. Raises ConfigError."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in recipes():
            raise ConfigError(
                f"no recipe is called {name!r}{nearest(name, recipes())}; "
                f"there are {', '.join(recipes())}, or give a .toml file"
            )
        path = RECIPES / f"{name}.toml"
    values = _read_toml(path)
    base = values.get("recipe", name)
    if values.keys() >= SECTIONS.keys():  # the config.toml of a run holds every setting
        values = _with_new_names(values)
    elif isinstance(base, str) and base != name:
        if base.endswith(".toml"):
            raise ConfigError(
                f"{path}: recipe = {base!r}: a recipe file can start from {', '.join(recipes())}, "
                "not from another file"
            )
        values = merged(load_recipe(base).model_dump(), values)
    return make_config(values, str(path)).model_copy(update={"recipe": name})


def read_config(path: Path) -> Config:
    """Settings of a run, from its config.toml; it may be of tag2mask 0.1. Raises ConfigError."""
    return make_config(_with_new_names(_read_toml(path)), str(path))


def base_config(out: Path | None, recipe: str | None = None) -> Config:
    """The settings to start from: the recipe's, else the run folder's, else those of `photos`.

    Raises ConfigError.
    """
    if recipe is None and out and (out / "config.toml").exists():
        return read_config(out / "config.toml")
    return load_recipe(recipe or "photos")


def changed_config(base: Config, changes: dict[str, Any], source: str = "") -> Config:
    """`base` with nested `changes`. Raises ConfigError, also if a change would have no effect."""
    config = make_config(merged(base.model_dump(), changes), source)
    if config.clusters.llm or config.clusters.source == "llm":
        return config
    for name, value in config.clusters:
        if name not in ("source", "llm") and value != getattr(base.clusters, name):
            raise ConfigError(
                f"clusters.{name} = {value!r} has no effect: only a language model reads it, "
                "and none is asked; give --clusters.llm NAME too"
            )
    return config


def write_config(config: Config, path: Path) -> None:
    """Write settings to a TOML file; `--recipe FILE` repeats the run."""
    write_text(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def with_whole_paths(config: Config) -> Config:
    """The same settings with absolute paths of all files; not of `out` and not of `recipe`."""

    def absolute(value: Any, key: str = "") -> Any:
        if isinstance(value, Settings):
            names = type(value).model_fields.keys() - {"out", "recipe"}
            return value.model_copy(update={n: absolute(getattr(value, n), n) for n in names})
        is_file = key in PATH_OR_WORD and Path(value).suffix and Path(value).is_file()
        is_path = isinstance(value, Path) and not is_address(value)
        return type(value)(Path(value).resolve()) if is_path or is_file else value

    return Config.model_validate(absolute(config))


def stored_settings(kind: type[Stored], text: str, path: Path) -> Stored:
    """Settings from the JSON in a model file. Raises RunError if this version cannot read them."""
    section = next(name for name, default in SECTIONS.items() if type(default) is kind)
    try:
        return kind.model_validate(_with_new_names({section: json.loads(text)})[section])
    except ValidationError as error:
        names = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise RunError(
            f"{path}: settings that this version of tag2mask does not know ({names}); "
            "use the version that made it"
        ) from None


# ---- nested values -------------------------------------------------------------------------------


def make_config(values: dict[str, Any], source: str = "") -> Config:
    """Settings from nested values. Raises ConfigError that names every fault, with `source`."""
    start = f"{source}: " * bool(source)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{start}{fault}" for fault in faults(error))) from None
    except ConfigError as error:
        raise ConfigError(f"{start}{error}") from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `over` in place of those of `base`."""
    return base | {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in over.items()
    }


def setting_names(settings: Settings, start: str = "") -> Iterator[str]:
    """Names of all settings, with their sections: "masks", "masks.crf", "masks.crf.iterations"."""
    for name, value in settings:
        yield f"{start}{name}"
        if isinstance(value, Settings):
            yield from setting_names(value, f"{start}{name}.")


def nearest(name: str, names: Iterable[str]) -> str:
    """ ", did you mean X?", or nothing if no name is similar."""
    close = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None


def _with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """Change settings that tag2mask 0.1 may have stored to the names and values of this version."""
    for old, new in OLD_NAMES.items():
        (section, name), (new_section, new_name) = old.split("."), new.split(".")
        settings = values.get(section)
        if isinstance(settings, dict) and name in settings:
            value = _new_value(old, settings.pop(name))
            values.setdefault(new_section, {})[new_name] = value
    if isinstance(segmenter := values.get("segmenter"), dict):
        segmenter.setdefault("head", "deeplab_v2")  # once the only one, without a name
    return values


def _new_value(old_name: str, value: Any) -> Any:
    return OLD_VALUES.get(str(value), value) if old_name == "masks.labels" else value


def faults(error: ValidationError) -> list[str]:
    """Each fault that pydantic reports, as a sentence."""
    sentences = []
    limits: dict[str, list[str]] = {}  # of a setting that may be one of several things
    for fault in error.errors():
        setting: Any = Config()
        names = []
        for name in fault["loc"]:  # what follows the setting's name are types and positions
            names.append(str(name))
            setting = getattr(setting, str(name), None)
            if not isinstance(setting, Settings):
                break
        key, value = ".".join(names), fault["input"]
        if fault["type"] == "extra_forbidden":
            sentences.append(_unknown(key, value))
        elif isinstance(setting, Settings):
            sentences.append(f"{key} = {value}: {key} is a section of settings")
        elif fault["type"] != "too_short":
            limit = LIMITS.get(fault["type"]) or _limit(fault["msg"])
            limits.setdefault(f"{key} = {value}", []).append(limit)
        elif len(error.errors()) == 1:
            sentences.append(f"{key}: at least one value is needed")
    return [*sentences, *(f"{s}: it should be {', or '.join(limits[s])}" for s in limits)]


def _limit(message: str) -> str:
    """Pydantic's "Input should be greater than or equal to 1" as "at least 1"."""
    limit = message.removeprefix("Input should be ").split(", unable")[0]
    for words, shorter in SHORTER.items():
        limit = limit.replace(words, shorter)
    return limit


def _unknown(key: str, value: Any) -> str:
    if key in OLD_NAMES:
        new = _new_value(key, value)
        return f"{key} is now called {OLD_NAMES[key]}; write {OLD_NAMES[key]} = {new!r}"
    names = list(setting_names(Config()))
    sections = [] if "." in key else [n for n in names if n.endswith(f".{key}")]
    if sections:
        return f"unknown setting {key!r}, did you mean {' or '.join(map(repr, sections))}?"
    return f"unknown setting {key!r}{nearest(key, names)}"
