import ast
import json
import re
import tomllib

from tag2mask.config_files import write_config
from tag2mask.report.card import write_card
from tag2mask.report.tags import found_text


def test_card_has_metrics_classes_and_use(run):
    figure = json.loads((run.folder / "evaluate/metrics.json").read_text(encoding="utf-8"))[
        "segmenter"
    ]
    card = write_card(run.folder, run.config, run.train, figure)
    assert card == run.folder / "segmenter" / "README.md"
    text = card.read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: tag2mask\n")
    for part in (
        "mIoU 43.2 %",
        "no tags given",
        "| 2 | 猫 |",
        "77 epochs",
        "License",
        "| seed | 7 |",
    ):
        assert part in text
    assert "<script>" not in text and "<u>" not in text
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert len(code.strip().splitlines()) == 3
    call = ast.parse(code).body[1].value
    assert call.func.attr == "load" and call.args[0].value == str(run.folder)


def test_card_without_metrics_says_so(run):
    text = write_card(run.folder, run.config, run.train, None).read_text(encoding="utf-8")
    assert "Not measured" in text and "mIoU" not in text and "By the tags" not in text


def test_card_says_what_is_found(run):
    """Tags are enough for that; where nobody knows, nothing is said."""
    tags = {"猫": {"photos": 3, "found": 1}, "dog": {"photos": 8, "found": 2}}
    finds = {"tags": tags, "nothing": {"photos": 9, "marked": 4}, "split": "train"}
    card = write_card(run.folder, run.config, run.train, None, found_text(finds))
    assert (
        "By the tags of training photos, which it gets without them, it finds 3 of 11, and marks "
        "something on 4 of 9 photos of nothing.\n"
    ) in card.read_text(encoding="utf-8")
    assert found_text(None) == found_text({"tags": {}, "nothing": {}}) == ""


def test_settings_on_the_page_are_those_of_the_file(run):
    from tag2mask.report.page import _settings

    write_config(run.config, run.folder / "config.toml")
    page = "\n".join(text for text, _ in _settings(run.config))
    assert tomllib.loads(page) == tomllib.loads(
        (run.folder / "config.toml").read_text(encoding="utf-8")
    )
