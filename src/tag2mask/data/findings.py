"""What is wrong with a data set: one `Finding` a fault, with the place and the way out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table as Grid
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
        return f"{self.where}: {self.what}" + (f"; {self.do}" if self.do else "")


def texts(findings: Iterable[Finding]) -> list[str]:
    """Findings as lines, at most `SHOWN` of each kind and how many more there are."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    lines = []
    for kind, same in kinds.items():
        lines += [str(finding) for finding in same[:SHOWN]]
        if len(same) > SHOWN:
            lines.append(f"{kind}: {len(same) - SHOWN} more")
    return lines


def findings_table(findings: Sequence[Finding]) -> Grid:
    """All findings as a terminal table, errors first. Print with rich."""
    errors = sum(finding.severity == "error" for finding in findings)
    grid = Grid(title=f"{errors} errors, {len(findings) - errors} warnings", show_lines=True)
    for column in ("", "where", "what is wrong", "what to do"):
        grid.add_column(column, overflow="fold")
    for finding in sorted(findings, key=lambda finding: finding.severity):
        style = "red" if finding.severity == "error" else "yellow"
        grid.add_row(Text(finding.severity, style), Text(finding.where), Text(finding.what), Text(finding.do))
    return grid
