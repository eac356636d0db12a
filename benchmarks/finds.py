"""What tags say of a segmenter on training photos, beside validation photos:

`python benchmarks/finds.py OUT/with-0 OUT/without-0 ...`, runs with validation photos that have
tags. Writes its table of results.md.
"""

import argparse
from pathlib import Path
from typing import Any

from tables import machine, rule, write

from tag2mask.files import read_json


def rates(finds: dict[str, Any]) -> tuple[str, str]:
    """The entry "finds" to the tags that are found, and to those that are marked wrongly."""
    found, photos, marked, others = (
        sum(n[key] for n in finds["tags"].values())
        for key in ("found", "photos", "marked", "others")
    )
    share, wrong = 100 * found / photos, 100 * marked / max(others, 1)
    return f"{found} of {photos} ({share:.0f} %)", f"{wrong:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    options = parser.parse_args()
    found, wrong = "tags found: {}", "marked where the tag is not: {}"
    columns = [
        what.format(photos) for what in (found, wrong) for photos in ("training", "validation")
    ]
    lines = rule("run", *columns)
    for run in options.runs:
        files = (run / "segmenter" / "finds.json", run / "evaluate" / "metrics.json")
        train, val = read_json(files[0]), read_json(files[1])["finds"]
        columns = [cell for pair in zip(rates(train), rates(val), strict=True) for cell in pair]
        lines.append(f"| {run.name} | {' | '.join(columns)} |")
    lines += ["", machine()]
    write(
        "finds", f"python benchmarks/finds.py {' '.join(run.name for run in options.runs)}", lines
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
