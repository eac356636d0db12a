"""mutmut over the modules that hold the method: `make mutants-all`. Settings: pyproject.toml, [tool.mutmut].

It works in the copy that by_hand.py makes. Survivors that change nothing that anyone could notice are listed in equivalent.toml, each with
the reason, and leave the score. `python tests/mutants/by_tool.py PATTERN ...` runs only mutants whose name fits, such as
`tag2mask.clusters.vote*`. Exit code 1 if fewer than 90 % of a module's mutants are killed.
"""

import ast
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from by_hand import ROOT, copy

LEAST = 0.9  # share of a module's mutants that must be killed
NOTICED = ("killed", "timeout", "segfault")


def main(patterns: list[str]) -> int:
    """Run mutmut, print the score of each module and what survives; the exit code."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    with copy() as folder:
        for file in settings["only_mutate"]:
            path = folder / file
            path.write_text(decorators_written_out(path.read_text(encoding="utf-8")), encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "start"), str(folder / "mutants" / "src")])
        os.chdir(folder)
        subprocess.run([*MUTMUT, "run", "--max-children", "1", *patterns], check=True)
        results = [line.strip().rsplit(": ", 1) for line in _output("results", "--all", "true").splitlines() if ": " in line]
        results = [(name, status) for name, status in results if status != "not checked"]
        equal = {(e["module"], e["old"], e["new"]): e["why"] for e in equivalents()}
        killed, every, used = Counter(), Counter(), set()
        for name, status in results:
            module = name.rpartition(".")[0].removeprefix("tag2mask.")
            change = () if status in NOTICED else (module, *_change(_output("show", name)))
            if change in equal:
                used.add(change)
                continue
            every[module] += 1
            killed[module] += status in NOTICED
            if change:
                print(f"\n{name}: {status}\n  - {change[1]}\n  + {change[2]}")
    for module in every:
        same = sum(change[0] == module for change in used)
        print(
            f"{module:24} {killed[module]:4} of {every[module]:4} killed: {killed[module] / every[module]:.1%}; {same} more change nothing"
        )
    print(f"{'all':24} {killed.total():4} of {every.total():4} killed: {killed.total() / every.total():.1%}")
    if not patterns and (stale := equal.keys() - used):
        print("no survivors any more, so they can leave equivalent.toml:", *stale, sep="\n  ")
    return any(killed[module] < LEAST * every[module] for module in every)


MUTMUT = (sys.executable, "-m", "mutmut")


def equivalents() -> list[dict[str, str]]:
    """Mutants that change nothing: module, old and new line, and why."""
    return tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8")).get("equivalent", [])


def decorators_written_out(source: str) -> str:
    """`@property` before a function becomes `name = property(name)` behind it: mutmut leaves decorated functions alone."""
    lines = source.splitlines(keepends=True)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.decorator_list]
    for node in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if decorators in (["classmethod"], ["staticmethod"]):
            continue  # mutmut's own business
        indent = " " * node.col_offset
        lines[node.end_lineno : node.end_lineno] = [f"{indent}{node.name} = {d}({node.name})\n" for d in reversed(decorators)]
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "".join(lines)


def _output(*arguments: str) -> str:
    return subprocess.run([*MUTMUT, *arguments], check=True, capture_output=True, text=True).stdout


def _change(diff: str) -> tuple[str, str]:
    """A diff to the lines that go and the lines that come, each in one."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "#"))]
    gone, come = ([line[1:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    return " ".join(gone), " ".join(come)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
