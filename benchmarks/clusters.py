"""Writes the last section of results.md: the presets and the clusters that embeddings make, and how far they agree with official groups."""

from pathlib import Path

from tag2mask.clusters import PRESETS, Clusters, load_clusters, make_clusters
from tag2mask.clusters.vote import adjusted_rand, canonical
from tag2mask.data.classes import COCO, VOC

SOURCES = {"VOC": (VOC, ("voc", "voc-overlapping", "offline", "random")), "COCO": (COCO, ("coco", "offline", "random"))}


def rows(official: Clusters, made: dict[str, Clusters]) -> list[str]:
    agreement = {name: adjusted_rand(canonical(clusters.as_mapping), canonical(official.as_mapping)) for name, clusters in made.items()}
    return [
        "| clusters | how many | of one tag | tags given away | adjusted Rand index |",
        "|---|---|---|---|---|",
        *[
            f"| `{name}` | {c.num_clusters} | {sum(len(held) == 1 for held in c.members)} | {len(c.given_away())} | {agreement[name]:.3f} |"
            for name, c in made.items()
        ],
    ]


def main() -> None:
    lines = [
        "## Clusters without a language model",
        "",
        "Made by `python benchmarks/clusters.py` (needs the extra `offline`; no network, no photo; `random` with seed 0).",
        "*Adjusted Rand index*: agreement with the groups of the data set's own authors, 1 the same, 0 by chance (the Omega index where",
        "tags overlap). *Tags given away*: tags that the cluster vector alone tells from every other tag. No language model was at hand,",
        "so there is no measured row for one. How clusters change a mask: the control arms above.",
    ]
    shown = []
    for name, (tags, sources) in SOURCES.items():
        official = load_clusters(PRESETS[f"{name.lower()}-supercategories"])
        made = {"supercategories": official, **{source: make_clusters(tags, source, seed=0) for source in sources}}
        lines += ["", f"### {name}, {len(tags)} tags", "", *rows(official, made)]
        for source in sources[:-1]:
            shown += [
                "",
                f"`{source}` ({name}):",
                "",
                *[f"- {cluster}: {', '.join(held)}" for cluster, held in made[source].as_mapping.items()],
            ]
    results = Path(__file__).with_name("results.md")
    before = results.read_text(encoding="utf-8").partition(lines[0])[0]  # this is the page's last section
    results.write_text(before + "\n".join([*lines, *shown]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
