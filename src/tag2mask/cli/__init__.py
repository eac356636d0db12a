"""The command line: the only module that parses arguments and prints results."""

import io
import os
import sys

from tag2mask.cli.arguments import ABOUT, print_error
from tag2mask.cli.commands import COMMANDS
from tag2mask.config import STAGE_NAMES
from tag2mask.config_files import nearest, recipes
from tag2mask.errors import Tag2MaskError
from tag2mask.forms import FORMS
from tag2mask.progress import start_log

HELP = """tag2mask turns image tags into a segmentation model.

  tag2mask demo --out runs/demo                   try it on built-in scenes, some minutes
  tag2mask run --data tags.csv --out runs/mine    train on your photos: all stages, then a report
  tag2mask predict runs/mine x.jpg new/ --out m   masks for any photos; they need no tags
  tag2mask view runs/mine                         look at photos and masks, and correct them

Data sets:
  tag2mask tags --data tags.csv                   show what is understood: form, tags, counts
  tag2mask check --data tags.csv                  list all faults of a data set
  tag2mask convert --data D --to coco --out C     convert tags and masks to another form
  tag2mask correct runs/mine --from export.json   take in masks corrected in CVAT, Label Studio ...
  tag2mask download voc12 --out data              download PASCAL VOC 2012 or MS COCO

One stage of a run, with its settings (`run` runs all):
{stages}

Without a run:
  tag2mask evaluate --pred masks --truth truth    metrics of masks made by any tool
  tag2mask clusters make --tags tags.csv          write a cluster file
  tag2mask clusters show clusters.json            show a cluster file; also: replay, stability
  tag2mask crf image.jpg scores.npy --out m.png   dense CRF of one photo

Forms of --data. Which one it is, is found out. If it is not read as you mean it, use --photos.form
NAME, or the other options of `tag2mask tags --help`:
{forms}

Recipes (--recipe NAME, or a TOML file of yours):
{recipes}

Settings with units and defaults: tag2mask run --help; of one stage: tag2mask classifier --help.
"""
RENAMED = {"train": "classifier", "segment": "segmenter"}
RESUMED = ("run", "demo", "download", *STAGE_NAMES[1:])  # run again, they resume


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, or 2 after an error that the user can fix."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # None: it is closed
        if isinstance(stream, io.TextIOWrapper):  # tags may have letters that it does not know
            stream.reconfigure(errors="backslashreplace")
    try:
        _run_command(argv)
        if sys.stdout:
            sys.stdout.flush()
    except Tag2MaskError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        resume = "; give the same command again to resume" if argv[0] in RESUMED else ""
        print(f"\ntag2mask: stopped{resume}", file=sys.stderr)
        return 130
    except MemoryError:
        print_error("not enough memory")
        return 2
    except BrokenPipeError:  # `tag2mask ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # for example no permission
        reason = (error.strerror or str(error)).lower()
        print_error(f"{error.filename}: {reason}" if error.filename else reason)
        return 2
    return 0


def _run_command(argv: list[str]) -> None:
    words = 2 if argv[:1] == ["clusters"] and argv[1:] and argv[1][0] != "-" else 1
    name = " ".join(argv[:words]) or "--help"
    if name in ("-h", "--help", "help"):
        print(help_text(), end="")
    elif name in ("-V", "--version"):
        from tag2mask import __version__

        print(__version__)
    elif name in COMMANDS:
        start_log()
        COMMANDS[name](argv[words:])
    elif name in RENAMED:
        raise Tag2MaskError(f"unknown command {name!r}; it is now `tag2mask {RENAMED[name]}`")
    else:
        raise Tag2MaskError(
            f"unknown command {name!r}{nearest(name, COMMANDS)} See `tag2mask --help`."
        )


def help_text() -> str:
    """What `tag2mask --help` prints."""
    stages = [f"  tag2mask {f'{name} --out runs/mine':<39}{about}" for name, about in ABOUT.items()]
    lines = [f"  {name:<12}{summary}" for name, summary in recipes().items()]
    forms = [f"  {name:<16}{what}" for name, what in FORMS.items()]
    return HELP.format(stages="\n".join(stages), forms="\n".join(forms), recipes="\n".join(lines))
