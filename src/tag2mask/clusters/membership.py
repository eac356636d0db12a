"""Named groups of tags: the cluster file, the membership matrix M and the cluster vector u (PPC section II.C, CPC section 3.3)."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.errors import ClusterError
from tag2mask.files import write_json


@dataclass(frozen=True)
class Clusters:
    """Named groups of tags; a tag may be in several (PPC) or in one (CPC). `make_clusters` and `load_clusters` build it."""

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]  # the tags of each cluster
    source: str = ""  # who made it and how
    transcript: str = ""  # file beside the cluster file that holds the language model's answers; empty where none was asked

    @classmethod
    def from_mapping(
        cls, clusters: Mapping[str, Sequence[str]], source: str = "", transcript: str = ""
    ) -> "Clusters":
        """{cluster name: its tags} as Clusters."""
        return cls(
            tuple(clusters), tuple(tuple(tags) for tags in clusters.values()), source, transcript
        )

    @property
    def num_clusters(self) -> int:
        """L, the length of the cluster vector; 0 means no cluster token."""
        return len(self.names)

    @property
    def as_mapping(self) -> dict[str, list[str]]:
        """{cluster name: its tags}."""
        return {name: list(tags) for name, tags in zip(self.names, self.members, strict=True)}

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Every tag of any cluster once, in order of appearance."""
        return tuple(dict.fromkeys(tag for tags in self.members for tag in tags))

    def of(self, tags: Sequence[str]) -> "Clusters":
        """The same clusters with only these tags in them, in this order; a cluster that is left empty goes."""
        kept = {
            name: [tag for tag in tags if tag in held]
            for name, held in zip(self.names, map(frozenset, self.members), strict=True)
        }
        return Clusters.from_mapping(
            {name: held for name, held in kept.items() if held}, self.source, self.transcript
        )

    def given_away(self) -> list[str]:
        """Tags that the cluster vector tells apart from every other tag: the network could score these without looking at the photo."""
        seen: dict[frozenset[str], list[str]] = {}
        for tag in self.tags:
            seen.setdefault(
                frozenset(
                    n for n, held in zip(self.names, self.members, strict=True) if tag in held
                ),
                [],
            ).append(tag)
        return [tags[0] for tags in seen.values() if len(tags) == 1]

    def save(self, path: Path) -> None:
        """Write the cluster file (JSON), whole or not at all."""
        transcript = {"transcript": self.transcript} if self.transcript else {}
        write_json(path, {"clusters": self.as_mapping, "source": self.source, **transcript})


def load_clusters(path: Path) -> Clusters:
    """Read a cluster file, {"clusters": {"pets": ["cat", "dog"], ...}, "source": "who made it"}. Raises ClusterError with every fault."""
    try:
        content = strict_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ClusterError(f"{path}: cannot read this cluster file ({error.strerror})") from None
    except ValueError as error:
        raise ClusterError(f"{path}: not a cluster file: {error}") from None
    clusters = content.get("clusters") if isinstance(content, dict) else None
    if not isinstance(clusters, dict):
        raise ClusterError(
            f'{path}: a cluster file reads {{"clusters": {{"pets": ["cat", "dog"]}}, "source": "who made it"}}'
        )
    problems = [problem for name, tags in clusters.items() for problem in _problems(name, tags)]
    for key in ("source", "transcript"):
        if not isinstance(content.get(key, ""), str):
            problems.append(f"{key!r} is not a text")
    if problems:
        raise ClusterError(
            "\n  - ".join(
                [f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}", *problems]
            )
        )
    return Clusters.from_mapping(
        clusters, content.get("source", f"the file {path.name}"), content.get("transcript", "")
    )


def _problems(name: str, tags: Any) -> list[str]:
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return [f"cluster {name!r} is not a list of tags"]
    twice = sorted({tag for tag in tags if tags.count(tag) > 1})
    return [f"cluster {name!r} is empty"] * (not tags) + [
        f"cluster {name!r} has {tag!r} twice" for tag in twice
    ]


def strict_json(text: str) -> Any:
    """`json.loads` in one spelling (NFC), but a key given twice is an error, not a silent loss, and so is text that no file can hold.

    Raises ValueError.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [_spelled(key) for key, _ in pairs]
        found = dict(zip(keys, (value for _, value in pairs), strict=True))
        if len(found) < len(pairs):
            raise ValueError(
                f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice"
            )
        return found

    try:
        value = _spelled(json.loads(text, object_pairs_hook=unique))
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise ValueError(
            f"no valid JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        ) from None
    except UnicodeEncodeError:
        raise ValueError("no valid JSON (half a surrogate pair)") from None
    except RecursionError:
        raise ValueError("no valid JSON (nested too deep)") from None


def _spelled(value: Any) -> Any:
    """A value of JSON with its texts in NFC, as tags are."""
    if isinstance(value, dict):
        return {key: _spelled(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_spelled(held) for held in value]
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def membership(clusters: Clusters, tags: Sequence[str]) -> np.ndarray:
    """Which tag is in which cluster: M (num_tags, L) float32 in {0, 1}; members that are no tag here have no row.

    Raises ClusterError naming every tag that no cluster holds. Without clusters (L = 0) no tag needs one.
    """
    missing = [tag for tag in tags if tag not in clusters.tags]
    if missing and clusters.num_clusters:
        raise ClusterError(
            f"{len(missing)} of {len(tags)} tags are in no cluster: {', '.join(missing)}; add each to a cluster ({clusters.source})"
        )
    return np.array(
        [[tag in held for held in clusters.members] for tag in tags], np.float32
    ).reshape(len(tags), clusters.num_clusters)


def cluster_vector(labels: Any, M: np.ndarray) -> Any:
    """u = 1[yM > 0], the clusters of each photo (PPC and CPC section "Category Cluster Tokens").

    labels: (B, num_tags) of 0 and 1, a numpy array or a torch tensor on any device; M: (num_tags, L).
    Returns (B, L) float32 of the same kind.
    """
    if isinstance(labels, np.ndarray):
        return (labels @ M > 0).astype(np.float32)
    import torch

    return (labels.float() @ torch.as_tensor(M, device=labels.device) > 0).float()
