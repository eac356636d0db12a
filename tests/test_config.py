"""Settings: recipes, stored settings of this version and of 0.1, and the errors for wrong ones."""

from pathlib import Path

import pytest

from tag2mask.config import ClassifierSettings, SegmenterSettings
from tag2mask.config_files import (
    SECTIONS,
    base_config,
    changed_config,
    load_recipe,
    make_config,
    merged,
    read_config,
    recipes,
    stored_settings,
    write_config,
)
from tag2mask.errors import ConfigError, RunError

STORED = Path(__file__).parent / "stored_by_0_1"  # written by the code of tag2mask 0.1


@pytest.mark.parametrize("name", recipes())
def test_config_written_and_read_is_the_same(name, tmp_path):
    config = load_recipe(name)
    write_config(config, tmp_path / "c.toml")
    assert read_config(tmp_path / "c.toml") == config


def test_every_recipe_says_what_it_is_for():
    assert next(iter(recipes())) == "photos"
    assert all(20 < len(summary) < 80 for summary in recipes().values())


def test_a_run_of_0_1_keeps_its_settings():
    config = read_config(STORED / "config.toml")
    assert config == load_recipe(str(STORED / "config.toml")).model_copy(update={"recipe": "ppc"})
    assert config.classifier.tag_loss == "top_k"
    assert (config.masks.scores, config.masks.threshold) == ("softmax_of_tags", 0.4)
    assert (config.segmenter.image_size, config.report.photos_per_split) == (300, 5)
    assert config.segmenter.head == "deeplab_v2", "there was no other"


def test_models_of_0_1_keep_their_settings():
    classifier = (STORED / "classifier.json").read_text()
    assert stored_settings(ClassifierSettings, classifier, Path("m")).tag_loss == "top_k"
    segmenter = (STORED / "segmenter.json").read_text()
    stored = stored_settings(SegmenterSettings, segmenter, Path("m"))
    assert (stored.image_size, stored.head) == (300, "deeplab_v2")
    with pytest.raises(RunError, match=r"m: settings that this version .*\(new_layer\)"):
        stored_settings(ClassifierSettings, '{"new_layer": 3}', Path("m"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plain", "softmax"),
        ("mask", "softmax_of_tags"),
        ("max_norm", "max_norm"),
        ("evidence", "logits"),
    ],
)
def test_an_old_name_in_a_recipe_is_an_error_with_the_new_one(old, new, tmp_path):
    (tmp_path / "r.toml").write_text(f'recipe = "cpc"\n[masks]\nlabels = "{old}"\n')
    with pytest.raises(
        ConfigError, match=f"masks.labels is now called masks.scores; write masks.scores = '{new}'"
    ):
        load_recipe(str(tmp_path / "r.toml"))
    text = (STORED / "config.toml").read_text().replace('"mask"', f'"{old}"')
    (tmp_path / "c.toml").write_text(text)
    assert read_config(tmp_path / "c.toml").masks.scores == new


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3}, "unknown setting 'epochs', did you mean 'classifier.epochs'?"),
        (
            {"classifier": {"epoch": 3}},
            "unknown setting 'classifier.epoch', did you mean 'classifier.epochs'?",
        ),
        ({"mask": {"crf": 1}}, "unknown setting 'mask', did you mean 'masks'?"),
        (
            {"classifier": {"epochs": 0}},
            "classifier.epochs = 0: it should be at least 1, or 'auto'",
        ),
        (
            {"classifier": {"epochs": "three"}},
            "classifier.epochs = three: it should be an integer, or 'auto'",
        ),
        ({"seed": 2**63}, "seed = 9223372036854775808: it should be less than 9223372036854775808"),
        ({"masks": {"scales": (0,)}}, "masks.scales = 0: it should be greater than 0"),
        ({"masks": {"scales": ()}}, "masks.scales: at least one value is needed"),
        ({"masks": 3}, "masks = 3: masks is a section of settings"),
        (
            {"masks": {"crf": {"iterations": -1}}},
            "masks.crf.iterations = -1: it should be at least 0",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(values, message):
    with pytest.raises(ConfigError) as caught:
        make_config(values)
    assert str(caught.value) == message


def test_every_fault_of_a_file_is_named(tmp_path):
    (tmp_path / "r.toml").write_text("\ufeff[classifier]\nepoch = 3\nlr = -1\n[mask]\ncrf = 1\n")
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "r.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{tmp_path / 'r.toml'}: ") for line in lines)


def test_settings_that_do_not_fit_together_name_their_file(tmp_path):
    (tmp_path / "r.toml").write_text(
        '[classifier]\ntag_loss = "mean"\n[masks]\nscores = "max_norm"\n'
    )
    with pytest.raises(ConfigError, match=r"r\.toml: masks\.scores = 'max_norm' needs a softmax"):
        read_config(tmp_path / "r.toml")


def test_a_run_keeps_its_settings_until_a_recipe_is_given(tmp_path):
    assert base_config(tmp_path) == base_config(None) == load_recipe("photos")
    config = changed_config(load_recipe("best"), {"classifier": {"epochs": 2}, "seed": 5})
    write_config(config, tmp_path / "config.toml")
    assert base_config(tmp_path) == config
    assert base_config(tmp_path, "cpc") == load_recipe("cpc")


def test_a_section_is_merged_setting_by_setting():
    base = {"masks": {"flip": True, "crf": {"iterations": 10, "gaussian_sxy": 1}}, "seed": 1}
    assert merged(base, {"masks": {"crf": {"iterations": 0}}}) == {
        "masks": {"flip": True, "crf": {"iterations": 0, "gaussian_sxy": 1}},
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": 5}, "val = 5: it should be a path"),
        ({"segmenter": {"scale_range": [1.0]}}, "scale_range = [1.0]: it should be a list of more"),
        ({"segmenter": {"scale_range": [1, 2, 3]}}, "it should be a list of fewer values"),
        ({"segmenter": {"scale_range": [0, 1]}}, "scale_range = 0: it should be greater than 0"),
        ({"segmenter": {"scale_range": [1.5, 0.5]}}, "give the smaller scale first"),
        ({"masks": {"scales": "a"}}, "masks.scales = a: it should be a list"),
        ({"classifier": {"lr": float("inf")}}, "classifier.lr = inf: it should be a finite number"),
        ({"classifier": {"epochs": 1.5}}, "it should be an integer, or 'auto'"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said_in_plain_words(changes, message):
    with pytest.raises(ConfigError) as caught:
        make_config(changes)
    assert message in str(caught.value) and "valid" not in str(caught.value)


def test_a_section_that_is_a_number_is_a_sentence(tmp_path):
    """In a file with every section, such as the config.toml of a run."""
    sections = "".join(f"[{name}]\n" for name in SECTIONS if name != "segmenter")
    (tmp_path / "r.toml").write_text(f"segmenter = 3\n{sections}")
    with pytest.raises(ConfigError, match="segmenter = 3: segmenter is a section of settings"):
        load_recipe(str(tmp_path / "r.toml"))
