"""Named groups of tags, the matrix M and the cluster vector u (PPC II.C, CPC 3.3)."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import normalize

import numpy as np

from tag2mask.errors import ClusterError, DataError
from tag2mask.files import read_text, write_json

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class Clusters:
    """Named groups of tags. A tag may be in several clusters (PPC) or in exactly one (CPC)."""

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]  # the tags of each cluster
    source: str = ""  # who made it and how
    transcript: str = ""  # name of the file with the language model's answers, if one was asked

    @classmethod
    def from_mapping(
        cls, clusters: Mapping[str, Sequence[str]], source: str = "", transcript: str = ""
    ) -> "Clusters":
        """{cluster name: its tags} to Clusters."""
        return cls(tuple(clusters), tuple(map(tuple, clusters.values())), source, transcript)

    @property
    def num_clusters(self) -> int:
        """L, the length of the cluster vector. 0 means no cluster token."""
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
        """The same clusters with these tags only, in this order. Empty clusters are removed."""
        members = [[tag for tag in tags if tag in members] for members in self.members]
        clusters = {name: tags for name, tags in zip(self.names, members, strict=True) if tags}
        return Clusters.from_mapping(clusters, self.source, self.transcript)

    def given_away(self) -> list[str]:
        """Tags with a unique cluster vector: it alone tells the network that the tag is present."""
        rows = {tag: tuple(tag in members for members in self.members) for tag in self.tags}
        counts = Counter(rows.values())
        return [tag for tag, row in rows.items() if counts[row] == 1]

    def save(self, path: Path) -> None:
        """Write the cluster file (JSON), whole or not at all."""
        transcript = {"transcript": self.transcript} if self.transcript else {}
        write_json(path, {"clusters": self.as_mapping, "source": self.source, **transcript})


def load_clusters(path: Path) -> Clusters:
    """A cluster file, {"clusters": {"pets": ["cat", "dog"]}, "source": "me"}, to Clusters.

    Texts are brought to NFC, as tags are. Raises ClusterError with every fault.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=_without_duplicates)
        json.dumps(content, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except DataError as error:
        raise ClusterError(f"not a readable cluster file: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"{path}: not a cluster file: {error}") from None
    clusters = content.get("clusters") if isinstance(content, dict) else None
    if not isinstance(clusters, dict):
        raise ClusterError(
            f"{path}: not a cluster file. It should look like this: "
            '{"clusters": {"pets": ["cat", "dog"]}, "source": "who made it"}'
        )
    problems = [problem for name, tags in clusters.items() for problem in _problems(name, tags)]
    for key in ("source", "transcript"):
        if not isinstance(content.get(key, ""), str):
            problems.append(f"{key!r} is not a text")
    if problems:
        count = f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}"
        raise ClusterError("\n  - ".join([count, *problems]))
    clusters = {name: [normalize("NFC", tag) for tag in tags] for name, tags in clusters.items()}
    source = content.get("source", f"the file {path.name}")
    return Clusters.from_mapping(clusters, source, content.get("transcript", ""))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict with keys in NFC. Raises ValueError for a duplicate."""
    counts = Counter(normalize("NFC", key) for key, _ in pairs)
    if duplicates := [key for key, count in counts.items() if count > 1]:
        raise ValueError(f"duplicate key {duplicates[0]!r}")
    return {normalize("NFC", key): value for key, value in pairs}


def _problems(name: str, tags: Any) -> list[str]:
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return [f"cluster {name!r} is not a list of tags"]
    if not tags:
        return [f"cluster {name!r} is empty"]
    counts = Counter(normalize("NFC", tag) for tag in tags)
    return [f"cluster {name!r}: duplicate {tag!r}" for tag in sorted(counts) if counts[tag] > 1]


def membership(clusters: Clusters, tags: Sequence[str]) -> np.ndarray:
    """Which tag is in which cluster: M (num_tags, L) float32 in {0, 1}.

    Raises ClusterError with every tag that is in no cluster, unless there are none (L = 0).
    """
    missing = [tag for tag in tags if tag not in clusters.tags]
    if missing and clusters.num_clusters:
        raise ClusterError(
            f"{len(missing)} of {len(tags)} tags are in no cluster: {', '.join(missing)}; "
            f"add each to a cluster ({clusters.source})"
        )
    M = np.array([[tag in members for members in clusters.members] for tag in tags], np.float32)
    return M.reshape(len(tags), clusters.num_clusters)


def cluster_vector(labels: Array, M: np.ndarray) -> Array:
    """u = 1[yM > 0], the clusters of each photo (PPC II.C, CPC 3.3).

    labels: (B, num_tags) of 0 and 1, a numpy array or a torch tensor on any device.
    M: (num_tags, L). Returns (B, L) float32 of the same kind as labels.
    """
    if isinstance(labels, np.ndarray):
        return (labels @ M > 0).astype(np.float32)
    import torch

    return (labels.float() @ torch.as_tensor(M, device=labels.device) > 0).float()
