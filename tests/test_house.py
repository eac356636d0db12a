"""The rules of the house: who imports whom, how large a file may be, how fast the command line answers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SOURCE = Path(__file__).parents[1] / "src" / "tag2mask"
ROOMS = (
    "clusters",
    "photos",
    "formats",
    "demo",
    "classifier",
    "masks",
    "segmenter",
    "evaluate",
    "report",
    "crf",
)
OPEN_TO_ALL = ("photos", "crf")  # the table and its pictures and masks; the CRF, usable alone
FACE = ("cli", "api", "runs")
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tag2mask"):
            parts = node.module.split(".")
            yield parts[1] if len(parts) > 1 else node.names[0].name
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("tag2mask."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_imports_run_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for other in imports(path):
        if room in ROOMS:
            assert other not in FACE, f"{path} imports {other}"
            assert other == room or other not in ROOMS or other in OPEN_TO_ALL, (
                f"the room {room} imports the room {other}"
            )
        elif room not in (*FACE, "__init__", "__main__"):
            assert other not in (*FACE, *ROOMS), f"the shared tool {room} imports {other}"


def test_files_stay_readable():
    assert {
        p.name: n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    } == {}


def test_help_answers_at_once_and_loads_nothing_heavy():
    heavy = ("torch", "timm", "numpy", "openai")
    code = f"import sys; from tag2mask.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    before = os.times()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    after = os.times()
    assert answer.splitlines()[-1] == "[]" and "tag2mask demo" in answer
    busy = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    assert busy < 1, "seconds of the processor, which other work beside it hardly lengthens"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rum"], "did you mean 'run'?"),
        (["run", "--recipe", "cpx"], "did you mean 'cpc'?"),
        (["run", "--recipe", "X/typo.toml"], "did you mean 'best'?"),
        (["run", "--recipe", "X/second.toml"], "a recipe file can start from best,"),
        (["demo", "--recipe=bset"], "did you mean 'best'?"),
        (["demo", "--data", "X/tags.csv"], "the demo makes its own photos"),
        (["run", "--data", "X/absent.csv", "--out", "X/typo.toml"], "exists"),
        (["run", "--out", "X/r"], "which photos?"),
        (["run", "--data", "X/absent.csv", "--out", "X/r"], "no such file"),
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
            "does not look at the tags, and segmenter.rounds above 1",
        ),
    ],
)
def test_errors_are_sentences_with_exit_code_2(argv, said, tmp_path, capfd):
    from tag2mask.cli import main

    (tmp_path / "typo.toml").write_text('recipe = "bset"')
    (tmp_path / "second.toml").write_text('recipe = "typo.toml"')
    (tmp_path / "classes.txt").write_text("cat\ndog\ncat\n")
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "a.png")
    assert main([word.replace("X", str(tmp_path)) for word in argv]) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error


def test_an_unknown_setting_names_the_nearest(tmp_path, capfd):
    from tag2mask.config import read_config
    from tag2mask.errors import ConfigError

    (tmp_path / "r.toml").write_text("\ufeff[classifier]\nepoch = 3\nlr = -1\n[mask]\ncrf = 1\n")
    with pytest.raises(
        ConfigError,
        match=r"did you mean 'epochs'(.|\n)*lr = -1(.|\n)*|lr = -1(.|\n)*did you mean 'epochs'",
    ) as caught:
        read_config(tmp_path / "r.toml")
    assert "did you mean 'masks'" in str(caught.value)


def test_settings_that_do_not_fit_together_name_their_file(tmp_path):
    from tag2mask.config import read_config
    from tag2mask.errors import ConfigError

    (tmp_path / "r.toml").write_text(
        '[classifier]\ntag_loss = "mean"\n[masks]\nscores = "max_norm"\n'
    )
    with pytest.raises(ConfigError, match=r"r\.toml: masks\.scores = 'max_norm' reads a softmax"):
        read_config(tmp_path / "r.toml")


def test_config_written_and_read_is_the_same(tmp_path):
    from tag2mask.config import load_recipe, read_config, recipes, write_config

    for name in recipes():
        config = load_recipe(name)
        write_config(config, tmp_path / "c.toml")
        assert read_config(tmp_path / "c.toml") == config
