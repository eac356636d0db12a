"""mutmut over the modules that hold the method, each with its own quick tests: `make mutants-all`.

It works in the copy that by_hand.py makes, after two changes that change nothing: decorators are written out, because mutmut leaves
decorated functions alone, and `strict=True` goes, a guard against our own mistakes whose loss no test can see. Survivors that nobody could
notice are in equivalent.toml, each with the reason, and leave the score. `python tests/mutants/by_tool.py clusters/vote.py ...` runs some
of the modules. Exit code 1 if less than 90 % of a module's mutants are killed.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from by_hand import copy

LEAST = 0.9  # share of a module's mutants that must be killed
NOTICED = ("killed", "timeout", "segfault")
MODULES = {  # in src/tag2mask: its tests in tests
    "classifier/hv_bilstm.py": [
        "classifier/test_net.py::test_hv_bilstm_keeps_the_width_and_sees_its_row_and_column_only",
        "classifier/test_net.py::test_hv_bilstm_is_one_lstm_over_every_row_and_one_over_every_column",
        "classifier/test_net.py::test_hv_bilstm_is_as_exact_under_autocast",
        "classifier/test_net.py::test_residual_hv_bilstm_starts_as_identity",
    ],
    "classifier/losses.py": ["classifier/test_losses.py"],
    "classifier/net.py": [
        "classifier/test_net.py::test_cluster_token_is_u_times_g",
        "classifier/test_net.py::test_variants_give_scores_that_sum_to_one",
        "classifier/test_net.py::test_scores_can_be_the_positive_logits_without_background",
        "classifier/test_net.py::test_save_and_load_give_the_same_scores",
        "classifier/test_net.py::test_the_file_is_all_that_a_classifier_needs",
        "classifier/test_net.py::test_parts_start_as_small_noise_and_without_clusters_there_is_no_cluster_token",
        "classifier/test_net.py::test_the_class_token_stands_behind_every_patch_token",
        "classifier/test_net.py::test_a_file_of_another_version_is_named",
        "masks/test_affinity.py::test_the_classifier_centers_its_maps[test_vit]",
        "classifier/test_cam.py",
    ],
    "clusters/membership.py": ["clusters/test_membership.py"],
    "clusters/vote.py": ["clusters/test_vote.py"],
    "evaluate/confusion.py": [
        "evaluate/test_confusion.py",
        "evaluate/test_boundary.py::test_a_shifted_square_by_hand",
    ],
    "masks/affinity.py": [
        "masks/test_affinity.py::test_by_hand",
        "masks/test_affinity.py::test_maps_must_all_agree_and_any_resolution_will_do",
        "masks/test_affinity.py::test_a_mean_over_patches",
    ],
    "masks/scores.py": ["masks/test_masks.py"],
}
SETTINGS = {
    "source_paths": ["src/"],
    "pytest_add_cli_args": [
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not real",
        "--hypothesis-profile=ci",
    ],
    "do_not_mutate_patterns": ["raise "],  # the words of errors
    "process_isolation": "forkserver",  # each mutant in a process that has run no test: PyTorch's threads, and our caches
    "timeout_multiplier": 3.0,  # times the seconds that the tests took, and as much again
    "timeout_constant": 3.0,
}
MUTMUT = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()"]


def main(modules: list[str]) -> int:
    """Run mutmut over these modules or all, print survivors and scores; the exit code."""
    scores = [
        score(module, tests)
        for module, tests in MODULES.items()
        if not modules or module in modules
    ]
    for module, killed, every, same, seconds in scores:
        print(
            f"{module:24} {killed:3} of {every:3} killed: {killed / every:.1%}; {same:2} more change nothing; {seconds:.0f} s"
        )
    killed, every = (sum(row[column] for row in scores) for column in (1, 2))
    print(f"{'all':24} {killed:3} of {every:3} killed: {killed / every:.1%}")
    return any(row[1] < LEAST * row[2] for row in scores)


def score(module: str, tests: list[str]) -> tuple[str, int, int, int, float]:
    """The module, how many of its mutants are killed, of how many that change something, how many change nothing, and seconds."""
    start = time.monotonic()
    listed = {(e["old"], e["new"]) for e in equivalents() if e["module"] == module}
    with copy() as folder:
        file = folder / "src" / "tag2mask" / module
        file.write_text(prepared(file.read_text(encoding="utf-8")), encoding="utf-8")
        settings = {**SETTINGS, "only_mutate": [f"src/tag2mask/{module}"]}
        settings["pytest_add_cli_args_test_selection"] = [f"tests/{test}" for test in tests]
        with (folder / "pyproject.toml").open("a") as stream:
            stream.write(
                "\n[tool.mutmut]\n"
                + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
            )
        (folder / "mutants" / "src").mkdir(
            parents=True
        )  # there before Python starts, which remembers folders that are not
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(folder / "start"), str(folder / "mutants" / "src")]
        )
        subprocess.run([*MUTMUT, "run", "--max-children", "1"], cwd=folder, check=True)
        results = dict(
            line.strip().rsplit(": ", 1)
            for line in _output(folder, "results", "--all", "true").splitlines()
            if ": " in line
        )
        changes = {
            name: _change(_output(folder, "show", name))
            for name, status in results.items()
            if status != "killed"
        }
    survived = {name: change for name, change in changes.items() if results[name] not in NOTICED}
    same = {name for name, change in survived.items() if change in listed}
    for name in changes.keys() - same:
        print(f"{name}: {results[name]}\n  - {changes[name][0]}\n  + {changes[name][1]}\n")
    for old, new in listed - set(survived.values()):
        print(f"{module}: listed as equivalent, but gone or killed:\n  - {old}\n  + {new}\n")
    return (
        module,
        len(results) - len(survived),
        len(results) - len(same),
        len(same),
        time.monotonic() - start,
    )


def equivalents() -> list[dict[str, str]]:
    """Mutants that nobody could notice: module, old and new text of the changed lines, and why."""
    return tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8"))[
        "equivalent"
    ]


def prepared(source: str) -> str:
    """`@property` before a function becomes `name = property(name)` behind it, and zips lose `strict=True`."""
    lines = source.splitlines(keepends=True)
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    for node in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if decorators in (["classmethod"], ["staticmethod"]):
            continue  # mutmut's own business
        lines[node.end_lineno : node.end_lineno] = [
            f"{' ' * node.col_offset}{node.name} = {d}({node.name})\n" for d in decorators[::-1]
        ]
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "".join(lines).replace(", strict=True", "")


def _output(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [*MUTMUT, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def _change(diff: str) -> tuple[str, str]:
    """A diff to the text that goes and the text that comes."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "#"))]
    gone, come = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return gone, come


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"all, or some of: {', '.join(MODULES)}"
    )
    modules = parser.parse_args().modules
    if unknown := set(modules) - MODULES.keys():
        parser.error(f"not in the list of modules: {', '.join(sorted(unknown))}")
    sys.exit(main(modules))
