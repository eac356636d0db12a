import pytest

from tag2mask.clusters import PRESETS, load_clusters, make_clusters
from tag2mask.clusters import make as module
from tag2mask.clusters.refine import replay
from tag2mask.demo.scenes import SCENE_TAGS
from tag2mask.errors import ClusterError
from tag2mask.photos import classes

VOC = list(classes.VOC)
SIZES = {
    "voc": 20,
    "voc-overlapping": 20,
    "voc-supercategories": 20,
    "coco": 80,
    "coco-supercategories": 80,
    "voc-llm": 20,
    "voc-ppc-llm": 20,
    "coco-llm": 80,
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_and_say_who_made_them(name):
    clusters = load_clusters(PRESETS[name])
    if name in SIZES:
        assert len(clusters.tags) == SIZES[name]
    if name.startswith("voc"):
        assert sorted(clusters.tags) == VOC
    assert len(clusters.source) > 60
    if name.endswith("-llm"):
        assert replay(PRESETS[name])[0].as_mapping == clusters.as_mapping
    if name in ("voc", "coco", "demo"):
        assert sum(map(len, clusters.members)) == len(clusters.tags), "a partition"
        assert not clusters.given_away()


def test_the_demo_preset_knows_the_tags_of_the_scenes():
    assert make_clusters(SCENE_TAGS, "demo").num_clusters == 3


def test_voc_and_coco_presets_know_the_classes_of_the_readers():
    assert set(classes.VOC) == set(load_clusters(PRESETS["voc"]).tags)
    assert set(classes.COCO) == set(load_clusters(PRESETS["coco"]).tags)
    official = load_clusters(PRESETS["coco-supercategories"])
    assert official.as_mapping == {
        name: list(tags) for name, tags in classes.COCO_SUPERCATEGORIES.items()
    }


def test_auto_takes_the_smallest_preset_that_knows_every_tag(monkeypatch):
    assert make_clusters(VOC).source == load_clusters(PRESETS["voc"]).source
    assert make_clusters(["toothbrush", "cat"]).source == load_clusters(PRESETS["coco"]).source
    assert (
        make_clusters(load_clusters(PRESETS["demo"]).tags).source
        == load_clusters(PRESETS["demo"]).source
    )
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert make_clusters(["axolotl", "cat"]).num_clusters == 0


def test_control_arms():
    assert make_clusters(VOC, "none").num_clusters == 0
    onehot = make_clusters(VOC, "onehot")
    assert onehot.num_clusters == 20 and onehot.members[3] == ("boat",)
    official = make_clusters(VOC, "supercategories")
    assert sorted(map(len, official.members)) == [1, 6, 6, 7]
    with pytest.raises(ClusterError, match="1 of 2 tags are in no cluster: axolotl"):
        make_clusters(["cat", "axolotl"], "supercategories")


def test_random_keeps_sizes_and_depends_on_the_seed_alone(monkeypatch):
    base = make_clusters(VOC, "voc")
    one, again, other = (make_clusters(VOC, "random", seed) for seed in (1, 1, 2))
    assert one == again and one.members != other.members
    assert [len(m) for m in one.members] == [len(m) for m in base.members]
    assert sorted(one.tags) == VOC
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    unknown = make_clusters([f"thing {i}" for i in range(10)], "random")
    assert sorted(len(m) for m in unknown.members) == [3, 3, 4]


def test_files_and_names(tmp_path):
    (tmp_path / "own.json").write_text('{"clusters": {"pets": ["cat", "dog", "fox"]}}')
    assert make_clusters(["dog", "cat"], tmp_path / "own.json").as_mapping == {
        "pets": ["dog", "cat"]
    }
    with pytest.raises(ClusterError, match="cow"):
        make_clusters(["cow"], str(tmp_path / "own.json"))
    with pytest.raises(
        ClusterError, match=r"no clusters called 'vocc': give a \.json file or one of llm, auto"
    ):
        make_clusters(VOC, "vocc")
