"""The command line: verbs and arguments only. Nothing heavy is imported before a verb needs it."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro

from tag2mask.errors import ConfigError, Tag2MaskError
from tag2mask.runs import STAGES

USAGE = """tag2mask turns image tags into a segmentation model.

  tag2mask demo --out runs/demo                        the whole path on built-in scenes, some minutes
  tag2mask run --data photos/tags.csv --out runs/a     tags -> clusters -> patch classifier -> pseudo masks -> segmenter -> report
  tag2mask predict runs/a picture.jpg folder/ --out masks/    masks for any pictures, no tags needed
  tag2mask check --data photos/tags.csv                everything wrong with a data set, at once
  tag2mask convert | download | crf                    forms of data sets, the benchmarks' archives, the dense CRF alone
  tag2mask evaluate --pred masks/ --truth truth/       figures for any masks, of any tool
  tag2mask clusters --tags tags.csv --llm gpt-4o --out clusters.json;  clusters show | replay | stability clusters.json

One stage of a run, with any setting changed (the later stages notice):
  tag2mask clusters | classifier | masks | segmenter | evaluate | report --out runs/a [--classifier.epochs 20 ...]

`tag2mask VERB --help` lists every setting with its unit and default. Recipes: {recipes} (--recipe NAME).
"""


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, or 2 with a message for an error that the user can mend."""
    try:
        _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except Tag2MaskError as error:
        print(f"tag2mask: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        verb = (sys.argv[1:] if argv is None else argv)[0]
        print(
            "\ntag2mask: stopped"
            + "; run it again to resume, a training from where it was a minute ago at most"
            * (verb in GO_ON),
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # `tag2mask ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder where a file is wanted, no permission
        print(f"tag2mask: {error}", file=sys.stderr)
        return 2
    return 0


def _dispatch(argv: list[str]) -> None:
    from tag2mask.config import nearest, recipes

    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE.format(recipes=", ".join(recipes())))
    elif argv[0] in ("-V", "--version"):
        from tag2mask import __version__

        print(__version__)
    elif argv[0] in VERBS:
        VERBS[argv[0]](argv[1:])
    else:
        raise Tag2MaskError(
            f"unknown command {argv[0]!r}{nearest(argv[0], list(VERBS))} See `tag2mask --help`."
        )


def _run(argv: list[str]) -> None:
    from tag2mask.api import run_config
    from tag2mask.config import parse_config

    run_config(parse_config(argv, "tag2mask run"))


def _stages(*names: str) -> Callable[[list[str]], None]:
    def verb(argv: list[str]) -> None:
        from tag2mask.api import run_config
        from tag2mask.config import parse_config

        run_config(parse_config(argv, f"tag2mask {names[-1]}"), names)

    return verb


def _demo(argv: list[str]) -> None:
    from tag2mask.api import run_demo
    from tag2mask.config import parse_config

    named = {word.split("=")[0] for word in argv}
    if own := sorted(named & {"--data", "--val", "--val-masks"}):
        raise ConfigError(
            f"{', '.join(own)}: the demo makes its own photos; for yours there is `tag2mask run`"
        )
    run_demo(
        parse_config(argv if "--recipe" in named else ["--recipe", "demo", *argv], "tag2mask demo")
    )


def _predict(argv: list[str]) -> None:
    def predict(
        run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="A run folder.")],
        pictures: Annotated[
            tyro.conf.Positional[tuple[Path, ...]],
            tyro.conf.arg(help="Pictures, or folders of pictures."),
        ],
        out: Annotated[
            Path, tyro.conf.arg(help="Folder for the masks; the tree below a given folder is kept.")
        ],
        overlay: Annotated[
            bool,
            tyro.conf.arg(help="Also write NAME.overlay.jpg, the mask drawn over the picture."),
        ] = False,
    ) -> None:
        """Masks for any pictures with the segmenter of a run: no tags needed."""
        from tag2mask.api import load

        load(run).predict_to(pictures, out, overlay)

    tyro.cli(predict, args=argv, prog="tag2mask predict")


def _command(room: str, function: str) -> Callable[[list[str]], None]:
    """A verb that is a function of a room; tyro makes its options from the signature."""

    def verb(argv: list[str]) -> None:
        from tag2mask.progress import start_log

        start_log()
        said = tyro.cli(
            getattr(import_module(f"tag2mask.{room}.command"), function),
            args=argv,
            prog=f"tag2mask {function.split('_')[0]}",
        )
        if said:
            print(said)

    return verb


def _clusters(argv: list[str]) -> None:
    if argv and argv[0] in ("show", "replay", "stability"):
        _command("clusters", argv[0])(argv[1:])
    elif any(word.split("=")[0] == "--tags" for word in argv):
        _command("clusters", "clusters")(argv)
    else:
        _stages("clusters")(argv)


def _evaluate(argv: list[str]) -> None:
    (
        _command("evaluate", "evaluate")
        if any(word.split("=")[0] == "--pred" for word in argv)
        else _stages("evaluate")
    )(argv)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "run": _run,
    "demo": _demo,
    "clusters": _clusters,
    "classifier": _stages("check", "classifier"),  # hours: not on data with errors
    **{name: _stages(name) for name in ("masks", "segmenter", "report")},
    "evaluate": _evaluate,
    "predict": _predict,
    "check": _command("formats", "check"),
    "convert": _command("formats", "convert"),
    "download": _command("formats", "download"),
    "crf": _command("crf", "crf_command"),
}

GO_ON = ("run", "demo", *STAGES[1:], "download")  # given again, they resume

if __name__ == "__main__":
    sys.exit(main())
