"""A language model's answer, read strictly: it fits the tags exactly, or every fault is named."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated
from unicodedata import normalize

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

Text = Annotated[str, AfterValidator(partial(normalize, "NFC"))]


class Cluster(BaseModel):
    """One cluster of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Text
    tags: list[Text]


class Answer(BaseModel):
    """Clusters as a list, because structured output knows no objects with free keys."""

    model_config = ConfigDict(extra="forbid", strict=True)
    clusters: list[Cluster]


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "clusters", "strict": True, "schema": Answer.model_json_schema()},
}


class BadAnswerError(Exception):
    """An answer that cannot be used. `args` are its faults, one sentence each."""


def read_answer(
    text: str, finish: str, tags: Sequence[str], overlap: bool
) -> dict[str, tuple[str, ...]]:
    """A raw answer to {cluster name: its tags}. Raises BadAnswerError with every fault.

    finish: the server's reason for stopping. overlap: whether a tag may be in several clusters.
    Models without structured output write thoughts before the JSON, or put it into one Markdown
    fence: these are removed. Nothing else is corrected.
    """
    if finish == "length":
        raise BadAnswerError(
            "The answer was cut off at the length limit. "
            "Write the JSON only, without spaces or line breaks."
        )
    if finish == "content_filter":
        raise BadAnswerError("The answer was withheld by a content filter.")
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    fenced = re.findall(r"```(?:json)?\s*\n(.*?)\n\s*```", text, re.DOTALL)
    try:
        answer = Answer.model_validate_json(fenced[0] if len(fenced) == 1 else text)
    except ValidationError as error:
        places = [(".".join(map(str, e["loc"])) or "the top", e["msg"]) for e in error.errors()]
        raise BadAnswerError(*(f"At {place}: {text}." for place, text in places[:5])) from None
    if faults := list(_faults(answer.clusters, tags, overlap)):
        raise BadAnswerError(*faults)
    return {cluster.name: tuple(cluster.tags) for cluster in answer.clusters}


def _faults(clusters: list[Cluster], tags: Sequence[str], overlap: bool) -> Iterator[str]:
    names = Counter(cluster.name for cluster in clusters)
    sets = Counter(frozenset(cluster.tags) for cluster in clusters if cluster.tags)
    counts = Counter(tag for cluster in clusters for tag in set(cluster.tags))
    missing = [tag for tag in tags if tag not in counts]
    if not all(name.strip() for name in names):
        yield "A cluster has an empty name."
    yield from (f"{n} clusters are called {name!r}." for name, n in names.items() if n > 1)
    yield from (
        f"The cluster {cluster.name!r} is empty." for cluster in clusters if not cluster.tags
    )
    for members, n in sets.items():
        if n > 1:
            yield f"{n} clusters hold the same categories: {', '.join(sorted(members))}."
    yield from (f"Missing: {tag!r}." for tag in missing)
    for tag in (tag for tag in counts if tag not in tags):
        near = difflib.get_close_matches(tag, missing, 1)
        advice = f"; write {near[0]!r}" if near else ""
        yield f"{tag!r} is not one of the categories{advice}."
    for cluster in clusters:
        for tag, n in Counter(cluster.tags).items():
            if n > 1:
                yield f"{tag!r} is {n} times in the cluster {cluster.name!r}."
    for tag in tags if not overlap else ():
        if counts[tag] > 1:
            yield f"{tag!r} is in {counts[tag]} clusters."
