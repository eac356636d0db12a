"""Run mutmut on the modules of the method, each with its own quick tests: `make mutants-all`.

It runs in the copy that by_hand.py makes, after two changes that keep the meaning: decorators are
written out, because mutmut skips decorated functions, and `strict=True` is removed, because no test
can notice its loss. Mutants that nobody could notice are in equivalent.toml, each with the reason,
and do not count. `python tests/mutants/by_tool.py clusters/vote.py ...` runs some of the modules.
The exit code is 1 if less than 90 % of a module's mutants are killed.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from by_hand import copy

MIN_KILLED = 0.9  # share of a module's mutants
KILLED = ("killed", "timeout", "segfault")
MODULES = {  # in src/tag2mask: its tests in tests
    "classifier/hv_bilstm.py": [
        "classifier/test_net.py::test_hv_bilstm_keeps_the_width_and_sees_its_row_and_column_only",
        "classifier/test_net.py::test_hv_bilstm_is_one_lstm_over_every_row_and_one_over_every_column",
        "classifier/test_net.py::test_hv_bilstm_is_as_exact_under_autocast",
        "classifier/test_net.py::test_residual_hv_bilstm_starts_as_identity",
    ],
    "classifier/losses.py": [
        "classifier/test_losses.py",
        "classifier/test_train.py::test_some_photos_learn_without_their_clusters",
    ],
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
        "masks/test_small.py::test_close_scores_are_what_their_formula_says",
        "masks/test_small.py::test_a_vit_has_no_finer_map_and_no_small_tag",
    ],
    "clusters/membership.py": ["clusters/test_membership.py"],
    "clusters/vote.py": ["clusters/test_vote.py"],
    "evaluate/confusion.py": [
        "evaluate/test_confusion.py",
        "evaluate/test_objects.py",
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
    "do_not_mutate_patterns": ["raise "],  # the texts of errors
    "process_isolation": "forkserver",  # PyTorch's threads, our caches
    "timeout_multiplier": 3.0,  # times the seconds that the tests took
    "timeout_constant": 3.0,
}
MUTMUT = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()"]


def main(modules: list[str]) -> int:
    """Run mutmut on these modules or all; print survivors and scores; return the exit code."""
    scores = [
        score(module, tests)
        for module, tests in MODULES.items()
        if not modules or module in modules
    ]
    for module, killed, total, equivalent, seconds in scores:
        line = f"{module:24} {killed:3} of {total:3} killed: {killed / total:.1%}"
        print(f"{line}; {equivalent:2} more are equivalent; {seconds:.0f} s")
    killed, total = (sum(row[column] for row in scores) for column in (1, 2))
    print(f"{'all':24} {killed:3} of {total:3} killed: {killed / total:.1%}")
    return any(row[1] < MIN_KILLED * row[2] for row in scores)


def score(module: str, tests: list[str]) -> tuple[str, int, int, int, float]:
    """Module; how many mutants are killed, can be killed, are equivalent; seconds."""
    start = time.monotonic()
    listed = {
        (squeezed(entry["old"]), squeezed(entry["new"]))
        for entry in equivalents()
        if entry["module"] == module
    }
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
        # Before Python starts: it remembers which folders do not exist.
        (folder / "mutants" / "src").mkdir(parents=True)
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
    survived = {name: change for name, change in changes.items() if results[name] not in KILLED}
    keys = {name: tuple(map(squeezed, change)) for name, change in survived.items()}
    equivalent = {name for name, key in keys.items() if key in listed}
    for name in changes.keys() - equivalent:
        print(f"{name}: {results[name]}\n  - {changes[name][0]}\n  + {changes[name][1]}\n")
    for old, new in listed - set(keys.values()):
        print(f"{module}: in equivalent.toml, but missing or killed:\n  - {old}\n  + {new}\n")
    return (
        module,
        len(results) - len(survived),
        len(results) - len(equivalent),
        len(equivalent),
        time.monotonic() - start,
    )


def equivalents() -> list[dict[str, str]]:
    """Mutants that nobody could notice: module, old and new text of the changed lines, and why."""
    text = (Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["equivalent"]


def squeezed(code: str) -> str:
    """`code` without white space and commas before brackets: the same for any formatting."""
    return re.sub(r",(?=[)\]}])", "", "".join(code.split()))


def prepared(source: str) -> str:
    """`@property` before a function becomes `name = property(name)` after it; no `strict=True`."""
    lines = source.splitlines(keepends=True)
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    for node in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if decorators in (["classmethod"], ["staticmethod"]):
            continue  # mutmut handles these
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
    """The old and the new text of a diff."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "#"))]
    old, new = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return old, new


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"default: all of {', '.join(MODULES)}"
    )
    modules = parser.parse_args().modules
    if unknown := set(modules) - MODULES.keys():
        parser.error(f"unknown modules: {', '.join(sorted(unknown))}")
    sys.exit(main(modules))
