"""What is wrong with a data set: one `Finding` a fault, with the place and the way out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.text import Text

SHOWN = 20  # findings of one kind that are written out


@dataclass(frozen=True)
class Finding:
    """A fault of a data set. An error stops a run, a warning does not."""

    kind: str  # "missing picture": what it has in common with others
    where: str  # file, row, tag
    what: str
    do: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")
        return text.encode(
            "utf-8", "backslashreplace"
        ).decode()  # file names that are not UTF-8 cannot be printed


def shorten(findings: Iterable[Finding]) -> list[Finding]:
    """At most `SHOWN` findings of each kind, and how many more there are."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    shown = []
    for kind, same in kinds.items():
        shown += same[:SHOWN]
        if len(same) > SHOWN:
            shown.append(
                Finding(kind, kind, f"{len(same) - SHOWN} more", severity=same[0].severity)
            )
    return shown


def findings_text(findings: Sequence[Finding]) -> Text:
    """Findings as lines for the terminal, errors first, and their count. Print with rich."""
    text = Text()
    for finding in shorten(sorted(findings, key=lambda finding: finding.severity)):
        text.append(
            f"{finding.severity:<8}", "red" if finding.severity == "error" else "yellow"
        ).append(f"{finding}\n")
    return text.append(count(findings) if findings else "nothing wrong was found")


def count(findings: Sequence[Finding]) -> str:
    """'1 error, 2 warnings'."""
    found = {
        name: sum(finding.severity == name for finding in findings) for name in ("error", "warning")
    }
    return ", ".join(
        f"{number} {name}{'' if number == 1 else 's'}" for name, number in found.items()
    )
