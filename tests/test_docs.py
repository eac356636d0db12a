"""What README.md says works: its Python runs, its commands and options exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from test_pipeline import SETTINGS, scenes  # noqa: F401  a fixture

from tag2mask.cli import VERBS, main
from tag2mask.config import load_recipe, make_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in re.findall(r"(?:^    |`)(tag2mask [a-z][^`\n#]*)", README, re.MULTILINE)]


@pytest.mark.slow
def test_the_python_example_runs(scenes, tmp_path, monkeypatch):  # noqa: F811
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(scenes)
    (tmp_path / "x.jpg").symlink_to(next((scenes / "photos").glob("*.jpg")))
    small = make_config({**load_recipe("photos").model_dump(), **SETTINGS})  # the same path at a size for tests
    monkeypatch.setattr("tag2mask.api.load_recipe", lambda name: small)
    names: dict = {"__name__": "__main__"}
    exec(code, names)
    assert names["mask"].shape == (96, 96) and names["run"].report.exists()


def test_commands_and_their_options_exist(capsys):
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        verbs, options = [], []
        for word in shlex.split(command)[1:]:
            (options if word.startswith("--") else verbs).append(word.split("=")[0].rstrip(","))
        names = [v for v in verbs if v in VERBS]
        assert names, command
        for name in names:
            if not options or options == ["--help"]:
                continue
            with pytest.raises(SystemExit):
                main([name, "--help", *(["--pred"] if "--pred" in options else [])])  # --pred chooses between two commands
            text = capsys.readouterr().out
            assert all(option in text for option in options), command


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
