"""What `tag2mask clusters` does outside a run: make a cluster file, show one, replay one, say how stable it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tag2mask.clusters.drawing import picture as draw
from tag2mask.clusters.make import make_clusters
from tag2mask.clusters.membership import Clusters, load_clusters
from tag2mask.errors import ClusterError
from tag2mask.runs import write_text

if TYPE_CHECKING:
    from tag2mask.clusters.llm import LanguageModel
    from tag2mask.clusters.refine import Voting

File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="A cluster file.")]


def transcript_beside(path: Path) -> Path:
    """Where the answers that a cluster file rests on lie: clusters.json has clusters.transcript.jsonl."""
    return path.with_suffix(".transcript.jsonl")


def make(tags: Sequence[str], out: Path, source: str = "auto", seed: int = 0, model: "LanguageModel | None" = None) -> Clusters:
    """Make clusters of these tags as `make_clusters` does, write them to `out`, show them."""
    clusters = make_clusters(tags, source, seed, model, transcript_beside(out))
    clusters.save(out)
    Console().print(_tree(clusters))
    return clusters


def show(file: File, picture: Annotated[Path | None, tyro.conf.arg(help="Also draw the clusters into this SVG file.")] = None) -> None:
    """Print the clusters of a file as a tree, and how stable they are where a language model made them."""
    clusters = load_clusters(file)
    console = Console()
    console.print(_tree(clusters))
    if given_away := clusters.given_away():
        console.print(Text(f"The cluster vector alone tells these tags from all others: {', '.join(given_away)}"))
    if clusters.transcript:
        stability(file)
    if picture:
        write_text(picture, draw(clusters))


def replay(file: File) -> None:
    """Make the clusters of a file again from its stored answers, without a network, and say whether they are the same, bit for bit."""
    from tag2mask.clusters.refine import replay as again

    clusters, votings = again(file)
    before = file.read_bytes()
    beside = file.with_name(f".{file.name}.replay")
    try:
        clusters.save(beside)
        same = beside.read_bytes() == before
    finally:
        beside.unlink(missing_ok=True)
    console = Console()
    console.print(_tree(clusters))
    if not same:
        raise ClusterError(f"{file} is not what its transcript leads to; the tree above is")
    answers = sum(len(voting.answers) for voting in votings)
    console.print(Text(f"{file}: the same, bit for bit, from {answers} stored answers and their refinements"))


def stability(file: File) -> None:
    """Print how far the answers behind a cluster file agree, for 2, 6 and 10 queries (CPC Table 5)."""
    from tag2mask.clusters.refine import replay as again

    _, votings = again(file)
    for voting in votings:
        Console().print(_table(voting))


def _tree(clusters: Clusters) -> Tree:
    tree = Tree(Text(f"{clusters.num_clusters} clusters of {len(clusters.tags)} tags: {clusters.source}"))
    for name, held in zip(clusters.names, clusters.members, strict=True):
        branch = tree.add(Text(f"{name} ({len(held)})", style="bold"))
        branch.add(Text(", ".join(held)))
    return tree


def _table(voting: "Voting") -> Table:
    from tag2mask.clusters.vote import stability as rows

    table = Table("R", "winner's share", "distinct", "adjusted Rand", "same winner as all", title=Text(str(voting)), title_justify="left")
    for row in rows(voting.answers):
        cells = (f"{row.share:.2f}", f"{row.distinct:.1f}", f"{row.adjusted_rand:.3f}", f"{row.same_winner:.2f}")
        table.add_row(str(row.queries), *cells)
    return table
