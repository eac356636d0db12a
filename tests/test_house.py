"""The rules of the house: who imports whom, how long a file may be, how fast help is printed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tag2mask.config import STAGE_NAMES

SOURCE = Path(__file__).parents[1] / "src" / "tag2mask"
FILES = sorted(SOURCE.rglob("*.py"))
BENCHMARKS = sorted((SOURCE.parents[1] / "benchmarks").rglob("*.py"))
FOLDERS = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
FACE = {"cli", "api", "runs", "view", "export"}  # they may import every room
ROOMS = FOLDERS - FACE
SHARED_ROOMS = {"photos", "crf"}  # the table with its images and masks; the CRF, usable alone
LONGEST_FILE, MOST_LINES = 350, 22862  # lower it when code goes; the aim is 9,000 with the forms


def imports(path):
    """Top-level names below tag2mask that a file imports, those for type checking excepted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tag2mask"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else (name.name for name in node.names)
        elif isinstance(node, ast.Import):
            names = (name.name for name in node.names)
            yield from (name.split(".")[1] for name in names if name.startswith("tag2mask."))


def test_rooms_are_the_folders():
    assert set(STAGE_NAMES) - {"check"} | SHARED_ROOMS | {"formats", "demo"} == ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_imports_run_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    others = set(imports(path)) - {room}
    if room in ROOMS:
        assert not others & FACE, "a room imports what is above it"
        assert not others & (ROOMS - SHARED_ROOMS), "a room imports another room"
        if room == "photos":
            assert not others & ROOMS, "photos imports another room"
    elif room == "runs":
        assert not others & {"cli", "api"}
    elif room == "api":
        assert "cli" not in others
    elif room not in (*FACE, "__init__", "__main__"):
        assert not others & (FACE | ROOMS), "the ground floor imports a room"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_only_the_command_line_parses_and_prints(path):
    if path.relative_to(SOURCE).parts[0] == "cli":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert not imported & {"tyro", "argparse"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    prints = [call for call in calls if ast.unparse(call.func) == "print"]
    assert not prints or path.name == "progress.py"  # a bar where there is no terminal


def line_count(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_and_lines_are_short():
    files = FILES + BENCHMARKS
    assert {path.name: n for path in files if (n := line_count(path)) > LONGEST_FILE} == {}
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if len(line) > 100] == []


def test_all_of_the_source_stays_small():
    assert sum(map(line_count, FILES)) <= MOST_LINES


def test_help_is_printed_at_once_and_loads_nothing_heavy():
    """In less than four times what importing the two libraries of the command line takes."""
    heavy = ("torch", "torchvision", "timm", "numpy", "openai", "PIL")

    def run(code):
        code = f"import sys, time; {code}; "
        code += f"print([m for m in {heavy} if m in sys.modules], time.process_time())"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def seconds(out):  # of the processor, which other work beside it hardly lengthens
        return float(out.split()[-1])

    code = "from tag2mask.cli import main; main(['--help'])", "import pydantic, tyro"
    # in turns: what other work takes from the processor changes from second to second
    outs, libraries = zip(*(tuple(map(run, code)) for _ in range(5)), strict=True)
    assert outs[0].splitlines()[-1].startswith("[] ") and "tag2mask demo" in outs[0]
    assert min(map(seconds, outs)) < 4 * min(map(seconds, libraries))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rum"], "did you mean 'run'?"),
        (["train", "--out", "X/r"], "it is now `tag2mask classifier`"),
        (["segment"], "it is now `tag2mask segmenter`"),
        (["clusters", "shwo", "X/c.json"], "did you mean 'clusters show'?"),
        (["run", "--recipe", "cpx"], "did you mean 'cpc'?"),
        (["run", "--recipe", "X/typo.toml"], "did you mean 'best'?"),
        (["run", "--recipe", "X/second.toml"], "a recipe file can start from photos, best,"),
        (["demo", "--recipe=bset"], "did you mean 'best'?"),
        (["demo", "--data", "X/tags.csv"], "the demo makes its own photos"),
        (["run", "--data", "X/absent.csv", "--out", "X/typo.toml"], "exists"),
        (["run", "--out", "X/r"], "no training photos given"),
        (["run", "--data", "X/absent.csv", "--out", "X/r"], "no such file"),
        (["evaluate", "--pred", "X/masks"], "give both --pred and --truth"),
        (["evaluate", "--out", "X/r", "--boundary"], "need --pred"),
        (
            ["evaluate", "--pred", "X/masks", "--truth", "X/masks", "--out", "X/masks/a.png"],
            "give an --out that ends in .json",
        ),
        (["run", "--classifier.epochs", "three"], "epochs = three: it should be an integer"),
        (["run", "--classifier.epochs", "0"], "epochs = 0: it should be at least 1, or 'auto'"),
        (["predict", "X/none", "X/a.jpg", "--out", "X/o"], "not a run folder"),
        (
            ["evaluate", "--pred", "X/masks", "--truth", "X/masks", "--classes", "X/classes.txt"],
            "duplicate class names: cat",
        ),
        (["masks", "--data", "X/absent.csv", "--out", "X/r"], "no such file"),
        (
            ["run", "--classifier.tag_loss", "mean", "--masks.scores", "max_norm"],
            "which classifier.tag_loss = 'mean' does not train; use",
        ),
        (
            ["run", "--masks.scores", "softmax", "--segmenter.rounds", "2"],
            "ignores the tags, and segmenter.rounds above 1",
        ),
    ],
)
def test_errors_are_sentences_with_exit_code_2(argv, message, tmp_path, capfd):
    from tag2mask.cli import main

    (tmp_path / "typo.toml").write_text('recipe = "bset"')
    (tmp_path / "second.toml").write_text('recipe = "typo.toml"')
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "a.png")
    assert main([word.replace("X", str(tmp_path)) for word in argv]) == 2
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "tags.csv"], "give photos by name: tag2mask run --data tags.csv"),
        (["tags"], "--data"),
        (["convert", ""], "--data"),
        (["run", "--device", "cuda"], "a GPU is used if there is one"),
        (["masks", "--classifier.epochs", "3"], "settings of classifier belong to"),
    ],
)
def test_options_that_do_not_exist_get_a_hint(argv, message, capfd):
    from tag2mask.cli import main

    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and message in capfd.readouterr().err


def test_letters_that_the_screen_does_not_know_are_no_error(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "tags.csv").write_text("file_name,tags\na.jpg,日本\n", encoding="utf-8")
    command = [sys.executable, "-m", "tag2mask", "tags", "--data", tmp_path / "tags.csv"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and r"\u65e5\u672c" in done.stdout


def help_of(*words, capfd):
    from tag2mask.cli import main

    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capfd.readouterr().out


@pytest.mark.parametrize("stage", STAGE_NAMES[1:])
def test_the_help_of_a_stage_has_its_settings_only(stage, capfd):
    text = help_of(stage, capfd=capfd)
    sections = {name for name in STAGE_NAMES[1:] if f"--{name}." in text}
    others = {"evaluate": {"segmenter"}, "classifier": {"evaluate"}, "report": {"evaluate"}}
    assert sections - others.get(stage, set()) == {stage}  # evaluate.classes tells true masks
    assert all(f"--{name} " in text for name in ("data", "out", "recipe", "seed"))
    assert "--segmenter.steps" not in text or stage == "segmenter"


def test_help_shows_the_ways_to_use_a_command(capfd):
    text = help_of("evaluate", capfd=capfd)
    assert all(f"--{name} " in text for name in ("pred", "truth", "list", "out"))
    text = help_of("clusters", capfd=capfd)
    assert all(name in text for name in ("make", "show", "replay", "stability"))
    assert "--tags" in help_of("clusters", "make", capfd=capfd)
    text = help_of("run", capfd=capfd)
    assert all(f"--{name}." in text for name in STAGE_NAMES[1:])


def test_a_read_only_folder_is_a_sentence(tmp_path, capfd, monkeypatch):
    from tag2mask.cli import main

    def refuse(*_):
        raise OSError(30, "Read-only file system", "ro/run")

    monkeypatch.setattr("tag2mask.api.run_config", refuse)
    assert main(["masks", "--out", str(tmp_path / "r")]) == 2
    assert capfd.readouterr().err == "tag2mask: ro/run: read-only file system\n"
