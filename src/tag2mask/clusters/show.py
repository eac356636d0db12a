"""Clusters and their stability, for the terminal."""

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tag2mask.clusters.membership import Clusters
from tag2mask.clusters.refine import Voting
from tag2mask.clusters.vote import stability


def cluster_tree(clusters: Clusters) -> Tree:
    """The clusters, and the tags of each. Print with rich."""
    count = f"{clusters.num_clusters} clusters of {len(clusters.tags)} tags"
    tree = Tree(Text(f"{count}: {clusters.source}"))
    for name, tags in zip(clusters.names, clusters.members, strict=True):
        tree.add(Text(f"{name} ({len(tags)})", style="bold")).add(Text(", ".join(tags)))
    return tree


def stability_table(voting: Voting) -> Table:
    """How far the answers of a vote agree, for several numbers of queries (CPC Table 5)."""
    columns = ("R", "winner's share", "distinct", "adjusted Rand", "same winner as all")
    table = Table(*columns, title=Text(str(voting)), title_justify="left")
    for row in stability(voting.answers):
        table.add_row(*map(format, row, ("", ".2f", ".1f", ".3f", ".2f")))
    return table
