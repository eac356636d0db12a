"""Reading a language model's answer strictly: it fits the tags exactly, or every fault is named so that the model can be asked again."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from tag2mask.clusters.membership import strict_json


class Cluster(BaseModel):
    """One cluster of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    tags: list[str]


class Answer(BaseModel):
    """The shape of every answer: a list, not an object, because structured output knows no free keys."""

    model_config = ConfigDict(extra="forbid", strict=True)
    clusters: list[Cluster]


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "clusters", "strict": True, "schema": Answer.model_json_schema()},
}


class BadAnswerError(Exception):
    """An answer that cannot be used; `faults` says why, one sentence each."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        super().__init__("; ".join(faults))


def read_answer(
    text: str, finish: str, tags: Sequence[str], overlap: bool
) -> dict[str, tuple[str, ...]]:
    """A raw answer to {cluster name: its tags}, or BadAnswerError naming every fault. Nothing is mended here.

    finish: the server's reason for stopping. overlap: whether a tag may be in several clusters. What models without structured
    output put around the JSON is taken off: thoughts in front, and all outside of the one Markdown fence.
    """
    if finish == "length":
        raise BadAnswerError(
            [
                "The answer was cut off at the length limit. Write the JSON only, without spaces or line breaks."
            ]
        )
    if finish == "content_filter":
        raise BadAnswerError(["The answer was withheld by a content filter."])
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    fenced = re.findall(r"```(?:json)?\s*\n(.*?)\n\s*```", text, re.DOTALL)
    try:
        answer = Answer.model_validate(strict_json(fenced[0] if len(fenced) == 1 else text))
    except ValidationError as error:
        raise BadAnswerError(
            [
                f"At {'.'.join(map(str, e['loc'])) or 'the top'}: {e['msg']}."
                for e in error.errors()[:5]
            ]
        ) from None
    except ValueError as error:
        raise BadAnswerError([f"The answer is {error}."]) from None
    if faults := [*_cluster_faults(answer.clusters), *_tag_faults(answer.clusters, tags, overlap)]:
        raise BadAnswerError(faults)
    return {cluster.name: tuple(cluster.tags) for cluster in answer.clusters}


def _cluster_faults(clusters: list[Cluster]) -> list[str]:
    names = Counter(cluster.name for cluster in clusters)
    sets = Counter(frozenset(cluster.tags) for cluster in clusters if cluster.tags)
    return [
        *["A cluster has an empty name."] * any(not name.strip() for name in names),
        *[f"{count} clusters are called {name!r}." for name, count in names.items() if count > 1],
        *[f"The cluster {cluster.name!r} is empty." for cluster in clusters if not cluster.tags],
        *[
            f"{count} clusters hold the same categories: {', '.join(sorted(held))}."
            for held, count in sets.items()
            if count > 1
        ],
    ]


def _tag_faults(clusters: list[Cluster], tags: Sequence[str], overlap: bool) -> list[str]:
    known = set(tags)
    holders = Counter(tag for cluster in clusters for tag in set(cluster.tags))
    missing = [tag for tag in tags if tag not in holders]
    faults = [f"Missing: {tag!r}." for tag in missing]
    for tag in holders:
        if tag not in known:
            near = difflib.get_close_matches(tag, missing, 1)
            faults.append(
                f"{tag!r} is not one of the categories{f'; write {near[0]!r}' if near else ''}."
            )
    for cluster in clusters:
        faults += [
            f"{tag!r} is {n} times in the cluster {cluster.name!r}."
            for tag, n in Counter(cluster.tags).items()
            if n > 1
        ]
    if not overlap:
        faults += [
            f"{tag!r} is in {count} clusters."
            for tag, count in holders.items()
            if count > 1 and tag in known
        ]
    return faults
