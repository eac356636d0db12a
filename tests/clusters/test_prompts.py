import pytest

from tag2mask.clusters.prompts import load_prompts, repair_message
from tag2mask.errors import ClusterError


def test_prompts_from_a_file(tmp_path):
    path, own = tmp_path / "prompts.toml", load_prompts()
    path.write_text('initial = "By color."')
    assert load_prompts(path).initial == "By color." and load_prompts(path).refine == own.refine
    assert "horse" in own.initial and "\\" not in own.initial + own.refine


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "initial and refine$"),
        ('first = "x"', "wrong: first"),
        ("refine = 3", "wrong: refine"),
        ('refine = " "', "wrong: refine"),
        ("=", "cannot read"),
    ],
)
def test_bad_prompt_files(tmp_path, text, message):
    path = tmp_path / "prompts.toml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=message):
        load_prompts(path)


def test_a_missing_prompt_file(tmp_path):
    with pytest.raises(ClusterError, match="No such file"):
        load_prompts(tmp_path / "none.toml")


def test_a_repair_message_is_short():
    message = repair_message([f"fault {n}" for n in range(40)], 50)
    assert "- fault 29\n- and 10 more faults.\n" in message and "all 50 categories" in message
