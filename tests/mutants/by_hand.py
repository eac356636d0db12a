"""Break the product on purpose, one change of mutants.toml at a time: `make mutants`.

The tests of each change must fail. The change is made in a copy of src and tests in a temporary
folder, never in the checkout. `python tests/mutants/by_hand.py WORD ...` runs only the mutants
whose description or file contains one of the words. The exit code is 1 if a mutant survives or if
its text is not in the file once.
"""

import argparse
import importlib.util
import multiprocessing
import os
import re
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
# Python runs this at each start. The import hook of an editable install would win over the copy.
START = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
"""


@dataclass(frozen=True)
class Mutant:
    """One change that a test must notice."""

    breaks: str  # what a user would get
    file: str  # in src/tag2mask
    old: str  # is in the file exactly once; line breaks may differ
    new: str
    tests: tuple[str, ...]  # in tests: a few that must fail

    def changed(self, source: str) -> str:
        """`source` with the change. Raises ValueError unless it contains the old text once."""
        places = list(re.finditer(re.escape(self.old), source))
        if not places:
            places = list(re.finditer(any_format(self.old), source))
        if len(places) != 1:
            raise ValueError(f"{self.file} contains {len(places)} times, not once: {self.old!r}")
        return source[: places[0].start()] + self.new + source[places[0].end() :]


def any_format(code: str) -> str:
    """A regular expression for `code` with any line breaks, spaces, and commas before brackets."""
    pattern, last = "", ""
    for token in re.findall(r"\w+|\S", re.sub(r",(?=\s*[)\]}])", "", code)):
        words = last.isidentifier() and token.isidentifier()
        pattern += r"\s+" if words else r",?\s*" if token in ")]}" else r"\s*" if last else ""
        pattern, last = pattern + re.escape(token), token
    return pattern


def mutants() -> list[Mutant]:
    """The mutants in mutants.toml."""
    text = (Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


@contextmanager
def copy() -> Iterator[Path]:
    """A temporary folder with src and its compiled core, tests and pyproject.toml.

    Programs started inside import this src.
    """
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
            "PYTHONDONTWRITEBYTECODE": "1",  # the cache could miss two changes within a second
            "OMP_NUM_THREADS": "1",
        }
        yield folder


def run_tests(
    folder: Path, tests: Iterable[str], limit: float | None = None
) -> tuple[int | None, float]:
    """Run tests of the copy in their own process -> pytest's exit code, and seconds.

    The code is None after `limit` [seconds]. The output goes to `folder`/log.
    """
    start = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(folder, tests))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return None, time.monotonic() - start
    return process.exitcode, time.monotonic() - start


def _pytest(folder: Path, tests: Iterable[str]) -> None:
    """Runs in a fork, which has the slow imports; tag2mask is imported again from the copy."""
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
    # --tb: pytest's own traceback sometimes ends in a SystemError of Python 3.11, which is no kill
    options = ["-x", "-q", "--tb=native", "-p", "no:cacheprovider", "--hypothesis-profile=ci"]
    sys.exit(pytest.main([*options, *named]))


def main(words: list[str]) -> int:
    """Run the mutants that contain one of the words, or all of them; returns the exit code."""
    chosen = [
        mutant
        for mutant in mutants()
        if not words or any(word in f"{mutant.breaks} {mutant.file}" for word in words)
    ]
    failures = []
    with copy() as folder:
        load()
        code, seconds = run_tests(
            folder, sorted({test for mutant in chosen for test in mutant.tests})
        )
        print(f"unchanged: pytest's exit code is {code} ({seconds:.0f} s)", flush=True)
        if code != 0:
            print((folder / "log").read_text())
            return 1
        limit = 60 + 2 * seconds  # a mutant that hangs counts as killed, a slow machine does not
        for number, mutant in enumerate(chosen, 1):
            path = folder / "src" / "tag2mask" / mutant.file
            source = path.read_text(encoding="utf-8")
            try:
                path.write_text(mutant.changed(source), encoding="utf-8")
                code, seconds = run_tests(folder, mutant.tests, limit)
                # With any other code, no test ran.
                names = {None: "killed (time)", 0: "SURVIVED", 1: "killed"}
                result = names.get(code, f"ERROR {code}")
            except ValueError as error:
                result, seconds = f"ERROR {error}", 0.0
            path.write_text(source, encoding="utf-8")
            line = f"{number:3} of {len(chosen)}  {result:9} {seconds:4.0f} s"
            print(f"{line}  {mutant.file}: {mutant.breaks}", flush=True)
            if not result.startswith("killed"):
                failures.append(mutant)
                if code not in (0, None):
                    print((folder / "log").read_text()[-2000:])
    print(f"{len(chosen) - len(failures)} of {len(chosen)} mutants killed")
    return bool(failures)


def load() -> None:
    """Import what every test needs; the process of each mutant is a fork of this one."""
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
        help="run only the mutants whose description or file contains one of these",
    )
    sys.exit(main(parser.parse_args().words))
