"""Errors that a user can cause. All derive from `Tag2MaskError`; the command line prints them without a traceback and exits with 2."""

from collections.abc import Sequence

MOST_SHOWN = 50  # problems in the text of an error


class Tag2MaskError(Exception):
    """What is wrong, where, and what to do about it."""


class ConfigError(Tag2MaskError):
    """A setting that does not exist, has the wrong type, or contradicts another."""


class DataError(Tag2MaskError):
    """Pictures, tags or masks that cannot be used; `problems` has every one found, the text the first fifty."""

    def __init__(self, problems: str | Sequence[str], source: object = None):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        where = f" in {source}" if source is not None else ""
        if len(self.problems) == 1:
            text = (
                f"{self.problems[0]}{where}"
                if where and str(source) not in self.problems[0]
                else self.problems[0]
            )
        else:
            more = len(self.problems) - MOST_SHOWN
            shown = [*self.problems[:MOST_SHOWN], *[f"and {more} more"] * (more > 0)]
            text = f"{len(self.problems)} problems{where}:\n" + "\n".join(f"  - {p}" for p in shown)
        super().__init__(text)


class ClusterError(Tag2MaskError):
    """A cluster file that does not fit the tags, or clusters that could not be made."""


class WeightsError(Tag2MaskError):
    """Weights that are missing or of another shape."""


class TrainingError(Tag2MaskError):
    """A training that cannot go on: NaN, or a network that predicts only background."""


class RunError(Tag2MaskError):
    """A run folder that lacks what a stage needs, or a disk that is full."""
