import json

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tag2mask.clusters import Clusters, cluster_vector, load_clusters, membership
from tag2mask.errors import ClusterError

OVERLAP = Clusters.from_mapping(
    {"animals": ["cat", "dog", "cow"], "pets": ["cat", "dog"], "vehicles": ["car", "bus"]}, "a test"
)


def test_matrix_and_vector_by_hand():
    tags = ("car", "cat", "cow")
    M = membership(OVERLAP, tags)
    assert M.dtype == np.float32
    assert M.tolist() == [[0, 0, 1], [1, 1, 0], [1, 0, 0]]
    labels = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0]], np.float32)
    by_hand = [[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]]
    assert (
        cluster_vector(labels, M).tolist() == by_hand
        and cluster_vector(labels, M).dtype == np.float32
    )
    for dtype in (torch.float32, torch.int64, torch.bool, torch.float16):
        u = cluster_vector(torch.from_numpy(labels).to(dtype), M)
        assert u.dtype == torch.float32 and u.tolist() == by_hand
    with FakeTensorMode():  # tensors without numbers, on a GPU that need not exist
        assert cluster_vector(torch.ones(4, 3, device="cuda"), M).device.type == "cuda", (
            "on the labels' device"
        )


def test_no_clusters_need_no_tag():
    M = membership(Clusters((), ()), ("cat", "dog"))
    assert M.shape == (2, 0)
    assert cluster_vector(torch.ones(3, 2), M).shape == (3, 0)


def test_every_tag_without_cluster_is_named():
    with pytest.raises(ClusterError, match="2 of 3 tags are in no cluster: fox, yak"):
        membership(OVERLAP, ("fox", "cat", "yak"))


def test_only_the_tags_of_the_data_stay():
    clusters = OVERLAP.of(("dog", "cow", "cat"))
    assert clusters.as_mapping == {"animals": ["dog", "cow", "cat"], "pets": ["dog", "cat"]}
    assert clusters.given_away() == ["cow"]


def test_file_round_trip(tmp_path):
    for clusters in (
        OVERLAP,
        Clusters((), (), "none"),
        Clusters(("é\n",), (('"x"',),), "s", "c.transcript.jsonl"),
    ):
        clusters.save(tmp_path / "c.json")
        assert load_clusters(tmp_path / "c.json") == clusters
    assert "transcript" not in json.loads(
        (OVERLAP.save(tmp_path / "c.json"), (tmp_path / "c.json").read_text())[1]
    )


def test_a_file_by_hand_has_one_spelling_and_says_where_it_comes_from(tmp_path):
    """As Windows' editors write it, with decomposed accents: tags of photos are in NFC."""
    (tmp_path / "c.json").write_text(
        '{"clusters": {"cafe\u0301s": ["cre\u0300me"]}}', encoding="utf-8-sig"
    )
    read = load_clusters(tmp_path / "c.json")
    assert read == Clusters(("caf\u00e9s",), (("cr\u00e8me",),), "the file c.json", "")
    assert Clusters.from_mapping({"a": ["x"]}) == Clusters(("a",), (("x",),), "", "")
    assert Clusters.from_mapping({"a": ["x"]}, "who", "file").of(["x"]) == Clusters(
        ("a",), (("x",),), "who", "file"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a cluster file: Expecting"),
        ('{"clusters":\n[}', "Expecting value: line 2 column 2"),
        ("[" * 200_000, "recursion"),
        ('{"clusters": {"a": ["\\ud800"]}}', "surrogates not allowed"),
        ("[1]", "It should look like this"),
        ('{"pets": ["cat"]}', "It should look like this"),
        ('{"clusters": {"a": ["cat"], "a": ["dog"]}}', "duplicate key 'a'"),
        ('{"clusters": {"\u00e9": ["cat"], "e\u0301": ["dog"]}}', "duplicate key '\u00e9'"),
        (
            '{"clusters": {"a": ["cat", 3]}}',
            "c.json: 1 problem\n  - cluster 'a' is not a list of tags$",
        ),
        ('{"clusters": {"a": [], "b": []}}', "c.json: 2 problems\n  - cluster 'a' is empty"),
        (
            '{"clusters": {"a": [], "b": "cat", "c": ["x", "y", "x", "y", "z"]}, '
            '"source": 3, "transcript": 4}',
            "c.json: 6 problems\n  - cluster 'a' is empty\n  - cluster 'b' is not a list of tags\n"
            "  - cluster 'c': duplicate 'x'\n  - cluster 'c': duplicate 'y'\n"
            "  - 'source' is not a text\n  - 'transcript' is not a text$",
        ),
    ],
)
def test_bad_files_are_explained(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text, encoding="utf-8")
    with pytest.raises(ClusterError, match=message):
        load_clusters(tmp_path / "c.json")


def test_missing_file(tmp_path):
    with pytest.raises(ClusterError, match="no such file"):
        load_clusters(tmp_path / "none.json")
