"""What is wrong with a data set: one `Finding` for each fault, with its place and the remedy."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from rich.text import Text

from tag2mask.progress import printable

SHOWN = 20  # findings of one kind that are written out
FEW = 3  # names of a list that are written out
LONGEST = 2000  # letters of a finding's text
COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}  # in order of severity


@dataclass(frozen=True)
class Finding:
    """A fault of a data set. An error stops a run, a warning does not, an info is no fault."""

    kind: str  # "missing picture"
    where: str  # file, row or tag
    what: str
    do: str = ""
    severity: Literal["error", "warning", "info"] = "error"

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")
        if len(text) > LONGEST:  # a name of 100,000 letters in a broken file
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        return printable(text)


warning = partial(Finding, severity="warning")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without repetitions, errors first."""
    order = list(COLORS)
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.severity))


def shorten(findings: Iterable[Finding]) -> list[Finding]:
    """At most `SHOWN` findings of each kind, then how many more of that kind there are."""
    lines: list[Finding] = []
    for same in _kinds(findings):
        lines += same[:SHOWN]
        if len(same) > SHOWN:
            more = f"{len(same) - SHOWN} more"
            lines.append(Finding(same[0].kind, same[0].kind, more, severity=same[0].severity))
    return lines


def problems(findings: Iterable[Finding]) -> list[str]:
    """All findings as the problems of a DataError, which counts them all but prints only the first.

    The first `SHOWN` of each kind come first, so that no kind is hidden behind another.
    """
    kinds = _kinds(findings)
    first = [str(finding) for same in kinds for finding in same[:SHOWN]]
    return first + [str(finding) for same in kinds for finding in same[SHOWN:]]


def findings_text(findings: Sequence[Finding]) -> Text:
    """Findings as lines for the terminal, errors first, then their count. Print it with rich."""
    text = Text()
    for finding in shorten(by_severity(findings)):
        text.append(f"{finding.severity:<8}", COLORS[finding.severity]).append(f"{finding}\n")
    return text.append(count(findings) if findings else "nothing wrong was found")


def count(findings: Sequence[Finding]) -> str:
    """'1 error, 2 warnings'."""
    numbers = {name: sum(f.severity == name for f in findings) for name in ("error", "warning")}
    return ", ".join(plural(n, name) for name, n in numbers.items())


def plural(number: int, noun: str) -> str:
    """'1 photo', '2 photos'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_few(names: Iterable[str]) -> str:
    """'a, b, c, ...': three names, and whether there are more."""
    first = list(islice(names, FEW + 1))
    return ", ".join(first[:FEW]) + (", ..." if len(first) > FEW else "")


def _kinds(findings: Iterable[Finding]) -> list[list[Finding]]:
    kinds = defaultdict(list)
    for finding in findings:
        kinds[finding.kind, finding.severity].append(finding)
    return list(kinds.values())
