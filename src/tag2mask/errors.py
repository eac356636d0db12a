"""Errors that a user can cause.

All derive from `Tag2MaskError`. The command line prints their text, and exits with code 2.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

MOST_SHOWN = 50  # problems in the text of an error


class Tag2MaskError(Exception):
    """What is wrong, where, and what to do about it."""


class ConfigError(Tag2MaskError):
    """A setting that does not exist, has the wrong type, or contradicts another."""


class DataError(Tag2MaskError):
    """Photos, tags or masks that cannot be used.

    `problems` has all problems; the text has the first fifty. `source` is the file or folder.
    """

    def __init__(self, problems: str | Sequence[str], source: object = None):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
            if source is not None and str(source) not in text:
                text = f"{source}: {text}"
        else:
            where = "" if source is None else f" in {source}"
            lines = [f"{len(self.problems)} problems{where}:", *self.problems[:MOST_SHOWN]]
            if (more := len(self.problems) - MOST_SHOWN) > 0:
                lines.append(f"and {more} more")
            text = "\n  - ".join(lines)
        super().__init__(text)


class ClusterError(Tag2MaskError):
    """A cluster file that does not fit the tags, or clusters that could not be made."""


class WeightsError(Tag2MaskError):
    """Weights that are missing or have another shape."""


class TrainingError(Tag2MaskError):
    """A training that cannot continue: NaN, or a network that predicts only background."""


class RunError(Tag2MaskError):
    """A run folder that does not have what a stage needs, or a full disk."""


def import_extra(module: str, extra: str, use: str, kind: type[Tag2MaskError] = DataError) -> Any:
    """A module that an extra of tag2mask installs. `use`: what needs it, for the error."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = f"{use} needs {error.name or module}"
        raise kind(f"{missing}: pip install 'tag2mask[{extra}]'") from None
