import json
import unicodedata

import pytest
from chat_server import answer
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.clusters.answers import SCHEMA, BadAnswerError, read_answer
from tag2mask.clusters.vote import canonical

TAGS = ("cat", "dog", "cow", "car")
GOOD = answer("cat dog cow", "car")


def faults(text: str, finish: str = "stop", overlap: bool = False) -> str:
    with pytest.raises(BadAnswerError) as caught:
        read_answer(text, finish, TAGS, overlap)
    return " ".join(caught.value.args)


def test_a_good_answer_and_a_fence_around_it():
    by_hand = {"group of cat": ("cat", "dog", "cow"), "group of car": ("car",)}
    assert read_answer(GOOD, "stop", TAGS, False) == by_hand
    assert read_answer(f"```json\n{GOOD}\n```\n", "stop", TAGS, False) == by_hand
    assert read_answer(f"```\n{GOOD}\n```", "", TAGS, True) == by_hand
    assert (
        read_answer(
            f"<think>\nA cat ```json\n{{}}\n``` is a pet.\n</think>\n{GOOD}", "stop", TAGS, False
        )
        == by_hand
    )
    assert (
        read_answer(f"Here you are:\n```json\n{GOOD}\n```\nAnything else?", "stop", TAGS, False)
        == by_hand
    )
    assert read_answer(answer("cafe\u0301"), "stop", ["caf\u00e9"], False) == {
        "group of caf\u00e9": ("caf\u00e9",)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (answer("cat dog", "car"), "Missing: 'cow'."),
        (answer("cat dog cow", "car bus"), "'bus' is not one of the categories."),
        (
            answer("cat dgo cow", "car"),
            "Missing: 'dog'. 'dgo' is not one of the categories; write 'dog'.",
        ),
        (answer("cat Dog cow", "car"), "'Dog' is not one of the categories; write 'dog'."),
        (answer("cat dog dog cow", "car"), "'dog' is 2 times in the cluster 'group of cat'."),
        (answer("cat dog cow", "car cat"), "'cat' is in 2 clusters."),
        (answer("cat dog cow", "cat", "car"), "2 clusters are called 'group of cat'."),
        (
            answer("cat dog cow car", "car dog cow cat"),
            "2 clusters hold the same categories: car, cat, cow, dog.",
        ),
        (
            '{"clusters": [{"name": "a", "tags": ["cat", "dog", "cow", "car"]}, '
            '{"name": "b", "tags": []}]}',
            "The cluster 'b' is empty.",
        ),
        (
            '{"clusters": [{"name": " ", "tags": ["cat", "dog", "cow", "car"]}]}',
            "A cluster has an empty name.",
        ),
        ('{"clusters": []}', "Missing: 'cat'. Missing: 'dog'. Missing: 'cow'. Missing: 'car'."),
        ('{"clusters": [], "clusters": []}', "Missing: 'cat'"),
        (
            '{"clusters": {"pets": ["cat", "dog", "cow", "car"]}}',
            "At clusters: Input should be a valid",
        ),
        (
            '{"clusters": [{"name": "a", "tags": ["cat", 3]}]}',
            "At clusters.0.tags.1: Input should be a valid string.",
        ),
        ('{"clusters": [{"name": "a", "tags": ["\\ud800"]}]}', "Invalid JSON"),
        (f"Here you are: {GOOD}", "Invalid JSON"),
        (GOOD[:-5], "Invalid JSON"),
        ("[" * 100_000, "recursion limit"),
        ("", "Invalid JSON"),
    ],
)
def test_every_fault_is_named(text, message):
    assert message in faults(text)


def test_cut_and_withheld_answers():
    assert "cut off" in faults(GOOD, "length")
    assert "content filter" in faults("", "content_filter")


def test_overlap_is_a_fault_of_partitions_only():
    both = answer("cat dog", "dog cow", "car")
    assert faults(both) == "'dog' is in 2 clusters."
    assert canonical(read_answer(both, "stop", TAGS, True)) == {
        frozenset({"cat", "dog"}),
        frozenset({"dog", "cow"}),
        frozenset({"car"}),
    }


def test_the_schema_asks_for_what_is_read():
    schema = SCHEMA["json_schema"]["schema"]
    assert schema["required"] == ["clusters"] and schema["additionalProperties"] is False
    inner = schema["$defs"]["Cluster"]
    assert inner["required"] == ["name", "tags"] and inner["additionalProperties"] is False


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        ).map(json.dumps),
    )
)
def test_anything_else_is_a_fault(text):
    assert faults(text)


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1).map(
    lambda text: unicodedata.normalize("NFC", text)
)


@given(st.lists(TEXTS, min_size=1, max_size=12, unique=True), st.data())
def test_any_text_can_be_a_tag(tags, data):
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(tags), max_size=len(tags)))
    clusters = {
        str(g): tuple(t for t, where in zip(tags, groups, strict=True) if where == g)
        for g in sorted(set(groups))
    }
    text = json.dumps(
        {"clusters": [{"name": name, "tags": tags} for name, tags in clusters.items()]}
    )
    assert read_answer(text, "stop", tags, False) == clusters
