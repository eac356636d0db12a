"""The presets and the clusters that embeddings make, and how far they agree with official groups: `python benchmarks/clusters.py`.

Writes its table of results.md. Needs the extra `offline`; no network, no photo.
"""

import argparse

from tables import machine, write

from tag2mask.clusters import PRESETS, Clusters, load_clusters, make_clusters
from tag2mask.clusters.vote import adjusted_rand, canonical
from tag2mask.photos.classes import COCO, VOC

SOURCES = {
    "VOC": (VOC, ("voc", "voc-overlapping", "offline", "random")),
    "COCO": (COCO, ("coco", "offline", "random")),
}


def rows(official: Clusters, made: dict[str, Clusters]) -> list[str]:
    agreement = {
        name: adjusted_rand(canonical(clusters.as_mapping), canonical(official.as_mapping))
        for name, clusters in made.items()
    }
    return [
        "| clusters | how many | of one tag | tags given away | adjusted Rand index |",
        "|---|---|---|---|---|",
        *[
            f"| `{name}` | {c.num_clusters} | {sum(len(held) == 1 for held in c.members)} | {len(c.given_away())} | {agreement[name]:.3f} |"
            for name, c in made.items()
        ],
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = []
    for name, (tags, sources) in SOURCES.items():
        official = load_clusters(PRESETS[f"{name.lower()}-supercategories"])
        made = {
            "supercategories": official,
            **{source: make_clusters(tags, source, seed=0) for source in sources},
        }
        lines += [f"{name}, {len(tags)} tags:", "", *rows(official, made), ""]
        for source in sources[:-1]:
            groups = [
                f"- {cluster}: {', '.join(held)}"
                for cluster, held in made[source].as_mapping.items()
            ]
            lines += [f"`{source}`:", "", *groups, ""]
    write("clusters", "python benchmarks/clusters.py", [*lines, machine()])


if __name__ == "__main__":
    main()
