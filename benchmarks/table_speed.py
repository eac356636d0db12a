"""Seconds, of the clock and of a core, and peak memory of reading tables of a million rows.

python benchmarks/table_speed.py [--rows 1000000] [--folder /tmp/table-speed]
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

TAGS = [f"tag {i}" for i in range(20)]


def photo(number: int) -> str:
    return f"photos/{number // 1000:04d}/IMG_{number:07d}.jpg"


def wide(rows: int, write) -> None:
    """A row for each photo, tags in one cell."""
    write("file_name,tags\n")
    for i in range(rows):
        write(f"{photo(i)},{';'.join(random.sample(TAGS, random.randint(0, 3)))}\n")


def names_alone(rows: int, write) -> None:
    """As `wide`, with names that have to be searched for: without folder and extension."""
    write("image_id,tags\n")
    for i in range(rows):
        write(f"IMG_{i:07d},{random.choice(TAGS)}\n")


def one_hot(rows: int, write) -> None:
    """A column for each of 20 tags."""
    write(f"filename, {', '.join(TAGS)}\n")
    for i in range(rows):
        write(photo(i) + "".join(f", {int(random.random() < 0.1)}" for _ in TAGS) + "\n")


def long(rows: int, write) -> None:
    """A row for each photo and tag, with confidences: four rows a photo."""
    write("ImageID,Source,LabelName,Confidence\n")
    for i in range(rows):
        own = random.Random(i // 4).sample(TAGS, 4)
        write(f"{photo(i // 4)},verification,{own[i % 4]},{random.choice((0, 1, 0.8))}\n")


def lines(rows: int, write) -> None:
    """JSON lines."""
    for i in range(rows):
        tags = ", ".join(f'"{tag}"' for tag in random.sample(TAGS, random.randint(0, 3)))
        write(f'{{"file_name": "{photo(i)}", "tags": [{tags}]}}\n')


TABLES = {"wide.csv": wide, "one-hot.csv": one_hot, "long.csv": long, "lines.jsonl": lines}
TABLES["search.csv"] = names_alone


def make(folder: Path, rows: int) -> None:
    for i in range(rows):
        path = folder / photo(i)
        if i % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, write_rows in TABLES.items():
        random.seed(0)
        with (folder / name).open("w") as file:
            write_rows(rows, file.write)


def read(path: Path) -> None:
    """Read one table, print what it took. In a process of its own: the peak is its peak."""
    from tag2mask.config import DataSettings
    from tag2mask.formats import load_table

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_cpu = time.perf_counter(), time.process_time()
    images = path.parent / "photos" if path.stem == "search" else None
    table = load_table(path, settings=DataSettings(images=images))
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{path.name:<12} {len(table):>9,} photos  {seconds:5.1f} s ({cpu:.1f} s of a core)"
        f"  peak {peak / 2**20:.2f} GB (before reading: {before / 2**20:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/table-speed"))
    parser.add_argument("--read", type=Path)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    if not (arguments.folder / "search.csv").exists():
        make(arguments.folder, arguments.rows)
    for name in TABLES:
        command = [sys.executable, __file__, "--read", str(arguments.folder / name)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
