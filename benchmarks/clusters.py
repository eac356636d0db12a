"""How far presets and clusters by embeddings agree with official groups.

`python benchmarks/clusters.py` writes its table of results.md. It needs the extra `offline`; no
network, no photo.
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


def table(official: Clusters, by_source: dict[str, Clusters]) -> list[str]:
    lines = [
        "| clusters | how many | of one tag | tags given away | adjusted Rand index |",
        "|---|---|---|---|---|",
    ]
    for name, clusters in by_source.items():
        rand = adjusted_rand(canonical(clusters.as_mapping), canonical(official.as_mapping))
        single = sum(len(tags) == 1 for tags in clusters.members)
        given_away = len(clusters.given_away())
        lines.append(
            f"| `{name}` | {clusters.num_clusters} | {single} | {given_away} | {rand:.3f} |"
        )
    return lines


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = []
    for name, (tags, sources) in SOURCES.items():
        official = load_clusters(PRESETS[f"{name.lower()}-supercategories"])
        by_source = {
            "supercategories": official,
            **{source: make_clusters(tags, source, seed=0) for source in sources},
        }
        lines += [f"{name}, {len(tags)} tags:", "", *table(official, by_source), ""]
        for source in sources[:-1]:
            groups = [
                f"- {cluster}: {', '.join(members)}"
                for cluster, members in by_source[source].as_mapping.items()
            ]
            lines += [f"`{source}`:", "", *groups, ""]
    write("clusters", "python benchmarks/clusters.py", [*lines, machine()])


if __name__ == "__main__":
    main()
