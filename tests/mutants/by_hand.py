"""Change the product on purpose, one change of mutants.toml at a time, and expect its tests to fail: `make mutants`.

The change is made in a copy of src and tests in a temporary folder, never in the checkout. `python tests/mutants/by_hand.py WORD ...`
runs only the mutants whose description or file holds one of the words. Exit code 1 if one survives, or if its text is not there once.
"""

import argparse
import importlib.util
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 600  # seconds for the tests of one mutant; one that hangs has been noticed
# Without an editable install's import hook, which would win over the copy: Python runs this file at each start.
START = "import sys\nsys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in type(finder).__module__]\n"


@dataclass(frozen=True)
class Mutant:
    """One change that a test must notice."""

    breaks: str  # what a user would get
    file: str  # in src/tag2mask
    old: str  # stands in the file exactly once
    new: str
    tests: tuple[str, ...]  # in tests: those that should notice, for speed

    def changed(self, source: str) -> str:
        """The file's text with the change. Raises ValueError unless the old text is there exactly once."""
        if (times := source.count(self.old)) != 1:
            raise ValueError(
                f"{self.file}: the text to replace is there {times} times, not once: {self.old!r}"
            )
        return source.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """The list, mutants.toml."""
    listed = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))[
        "mutant"
    ]
    return [Mutant(**{**mutant, "tests": tuple(mutant["tests"])}) for mutant in listed]


@contextmanager
def copy() -> Iterator[Path]:
    """A temporary folder with src (the compiled core in it), tests and pyproject.toml; programs started inside import this src."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name).resolve()
        for part in ("src", "tests"):
            shutil.copytree(
                ROOT / part,
                folder / part,
                ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd"),
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        if core := importlib.util.find_spec("tag2mask.crf._core"):
            shutil.copy(core.origin, folder / "src" / "tag2mask" / "crf")
        (folder / "start").mkdir()
        (folder / "start" / "sitecustomize.py").write_text(START)
        os.environ |= {
            "PYTHONPATH": os.pathsep.join([str(folder / "start"), str(folder / "src")]),
            "PYTHONDONTWRITEBYTECODE": "1",  # two changes within a second may look alike to Python's cache
            "OMP_NUM_THREADS": "1",
        }
        yield folder


def run_tests(folder: Path, tests: Iterable[str]) -> tuple[int | None, float]:
    """Run tests of the copy in a process of its own: pytest's exit code, None if it took too long, and seconds. Output: `folder`/log."""
    start = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(folder, tests))
    process.start()
    process.join(TIME_LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        return None, time.monotonic() - start
    return process.exitcode, time.monotonic() - start


def _pytest(folder: Path, tests: Iterable[str]) -> None:
    """In a fork of this process, which has loaded all that is slow to load: tag2mask anew, from the copy."""
    os.chdir(folder)
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for name in [name for name in sys.modules if name.split(".")[0] == "tag2mask"]:
        del sys.modules[name]
    exec(START)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder / "src"))
    import pytest

    import tag2mask

    assert Path(tag2mask.__file__).is_relative_to(folder), tag2mask.__file__
    named = [f"tests/{test}" for test in tests]
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *named]))


def main(words: list[str]) -> int:
    """Run the mutants that hold one of the words, all without words; the exit code."""
    chosen = [
        mutant
        for mutant in mutants()
        if not words or any(word in f"{mutant.breaks} {mutant.file}" for word in words)
    ]
    wrong = []
    with copy() as folder:
        load()
        code, seconds = run_tests(
            folder, sorted({test for mutant in chosen for test in mutant.tests})
        )
        print(f"unchanged: pytest's exit code is {code} ({seconds:.0f} s)", flush=True)
        if code != 0:
            print((folder / "log").read_text())
            return 1
        for number, mutant in enumerate(chosen, 1):
            path = folder / "src" / "tag2mask" / mutant.file
            source = path.read_text(encoding="utf-8")
            try:
                path.write_text(mutant.changed(source), encoding="utf-8")
                code, seconds = run_tests(folder, mutant.tests)
                result = {None: "killed (time)", 0: "SURVIVED", 1: "killed"}.get(
                    code, f"ERROR {code}"
                )  # others: no test has run
            except ValueError as error:
                result, seconds = f"ERROR {error}", 0.0
            path.write_text(source, encoding="utf-8")
            print(
                f"{number:3} of {len(chosen)}  {result:9} {seconds:4.0f} s  {mutant.file}: {mutant.breaks}",
                flush=True,
            )
            if not result.startswith("killed"):
                wrong.append(mutant)
                if code not in (0, None):
                    print((folder / "log").read_text()[-2000:])
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} mutants killed")
    return bool(wrong)


def load() -> None:
    """Import what every test needs; each mutant's process is a fork of this one."""
    import accelerate  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    import tag2mask.vision  # noqa: F401

    import timm  # noqa: F401  # isort: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="only mutants whose description or file holds one of these",
    )
    sys.exit(main(parser.parse_args().words))
