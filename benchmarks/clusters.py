"""How far presets and clusters by embeddings agree with official groups; how stable are those of a
language model.

`python benchmarks/clusters.py` writes its table of results.md. It needs the extra `offline`; no
network, no photo.
"""

import argparse

from tables import machine, rule, write

from tag2mask.clusters import PRESETS, Clusters, load_clusters, make_clusters
from tag2mask.clusters.refine import replay
from tag2mask.clusters.vote import adjusted_rand, canonical, stability
from tag2mask.photos.classes import COCO, VOC

SOURCES = {
    "VOC": (VOC, ("voc", "voc-overlapping", "voc-llm", "voc-ppc-llm", "offline", "random")),
    "COCO": (COCO, ("coco", "coco-llm", "offline", "random")),
}
BY_LLM = ("voc-llm", "coco-llm", "voc-ppc-llm")  # presets with stored answers


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


def stability_table() -> list[str]:
    """How far the answers agree, for R = 2, 6 and 10 of them (CPC Table 5)."""
    columns = ("clusters", "R", "winner's share", "distinct answers", "adjusted Rand index")
    lines = rule(*columns, "same winner as all answers")
    ends = []
    for name in BY_LLM:
        voting = replay(PRESETS[name])[1][0]
        ends.append(f"- `{name}`: {voting}")
        for row in stability(voting.answers):
            cells = map(format, row, ("", ".2f", ".1f", ".3f", ".2f"))
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return ["Answers of a language model:", "", *ends, "", *lines, ""]


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
    write("clusters", "python benchmarks/clusters.py", [*lines, *stability_table(), machine()])


if __name__ == "__main__":
    main()
