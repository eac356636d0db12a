"""What `tag2mask clusters` does outside a run: make a cluster file, show one, replay one, say how stable it is."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tag2mask.clusters.drawing import picture as draw
from tag2mask.clusters.make import make_clusters
from tag2mask.clusters.membership import Clusters, load_clusters
from tag2mask.clusters.transcript import transcript_beside
from tag2mask.config import ClusterSettings
from tag2mask.errors import ClusterError
from tag2mask.files import write_text
from tag2mask.photos.table import clean_tag

if TYPE_CHECKING:
    from tag2mask.clusters.refine import Voting

File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="A cluster file.")]


def clusters(
    tags: Annotated[
        Path,
        tyro.conf.arg(
            help="A CSV file with a column `tags`, as for a run, or a text file with one tag a line."
        ),
    ],
    out: Annotated[Path, tyro.conf.arg(help="The cluster file to write.")] = Path("clusters.json"),
    source: Annotated[
        str, tyro.conf.arg(help="Without --llm and --offline: a preset, auto, or a control arm.")
    ] = "auto",
    offline: Annotated[
        bool, tyro.conf.arg(help="Sentence embeddings of the tags instead of a language model.")
    ] = False,
    llm: Annotated[
        str,
        tyro.conf.arg(
            help="The language model: gpt-4o, llama3.1 ... The key comes from OPENAI_API_KEY."
        ),
    ] = "",
    llm_url: Annotated[
        str, tyro.conf.arg(help="Address of a chat-completions server; empty: OpenAI.")
    ] = "",
    queries: Annotated[
        int, tyro.conf.arg(help="R, answers that are voted on (CPC Algorithm 1).")
    ] = 10,
    refinements: Annotated[int, tyro.conf.arg(help="Most uses of the refine prompt.")] = 10,
    overlap: Annotated[bool, tyro.conf.arg(help="Let a tag be in several clusters (PPC).")] = False,
    structured: Annotated[
        bool, tyro.conf.arg(help="Structured output; off for servers that know none.")
    ] = True,
    temperature: Annotated[
        float | Literal["none"], tyro.conf.arg(help="Sampling temperature; none: not sent.")
    ] = 0.0,
    timeout: Annotated[float, tyro.conf.arg(help="Longest wait for one answer [s].")] = 120.0,
    prompts: Annotated[
        Path | None,
        tyro.conf.arg(help="Your own prompts: a TOML file with `initial` and `refine`."),
    ] = None,
    seed: Annotated[int, tyro.conf.arg(help="Seed of the control arm random.")] = 0,
) -> None:
    """Make clusters of a list of tags, write them to a cluster file and print them. A transcript beside it keeps every answer."""
    if bool(llm) + offline + (source != "auto") > 1:
        raise ClusterError("clusters come from one place: give --llm, --offline or --source")
    settings = ClusterSettings(
        source="llm" if llm else "offline" if offline else source,
        llm=llm or None,
        llm_url=llm_url or None,
        queries=queries,
        refinements=refinements,
        overlap=overlap,
        structured=structured,
        temperature=temperature,
        timeout=timeout,
        prompts=prompts,
    )
    if not llm and settings != ClusterSettings(source=settings.source):
        raise ClusterError(
            "only a language model reads --llm-url, --queries, --refinements, --overlap and the like; give --llm NAME too"
        )
    made = make_clusters(read_tags(tags), settings, seed, transcript_beside(out))
    made.save(out)
    Console().print(_tree(made))


def read_tags(path: Path) -> tuple[str, ...]:
    """The tags in a file: all that occur in the column `tags` of a CSV (sorted), or the lines of a text file. Raises ClusterError."""
    if path.suffix.lower() in (".json", ".jsonl"):
        raise ClusterError(
            f"{path}: tags are read from a CSV file with a column `tags`, or from a text file with one tag a line"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() != ".csv":
                found = [clean_tag(line) for line in stream]
            else:
                rows = csv.DictReader(stream)
                rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
                if "tags" not in rows.fieldnames:
                    raise ClusterError(f"{path}: no column is called tags")
                found = sorted(
                    {clean_tag(tag) for row in rows for tag in (row["tags"] or "").split(";")}
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ClusterError(f"{path}: cannot read tags from this file ({error})") from None
    tags = tuple(dict.fromkeys(tag for tag in found if tag))
    if not tags:
        raise ClusterError(f"{path}: no tags in this file")
    return tags


def show(
    file: File,
    picture: Annotated[
        Path | None, tyro.conf.arg(help="Also draw the clusters into this SVG file.")
    ] = None,
) -> None:
    """Print the clusters of a file as a tree, and how stable they are where a language model made them."""
    stored = load_clusters(file)
    Console().print(_tree(stored))
    if given_away := stored.given_away():
        Console().print(
            Text(
                f"The cluster vector alone tells these tags from all others: {', '.join(given_away)}"
            )
        )
    if picture:
        write_text(picture, draw(stored))
    if stored.transcript and (file.parent / stored.transcript).exists():
        stability(file)
    elif stored.transcript:
        Console().print(
            Text(
                f"How stable they are is not known: {stored.transcript} does not lie beside {file}"
            )
        )


def replay(file: File) -> None:
    """Make the clusters of a file again from its stored answers, without a network, and say whether they are the same, bit for bit."""
    from tag2mask.clusters.refine import replay as again

    made, votings = again(file)
    before = file.read_bytes()
    beside = file.with_name(f".{file.name}.replay")
    try:
        made.save(beside)
        same = beside.read_bytes() == before
    finally:
        beside.unlink(missing_ok=True)
    Console().print(_tree(made))
    if not same:
        raise ClusterError(f"{file} is not what its transcript leads to; the tree above is")
    answers = sum(len(voting.answers) for voting in votings)
    Console().print(
        Text(f"{file}: the same, bit for bit, from {answers} stored answers and their refinements")
    )


def stability(file: File) -> None:
    """Print how far the answers behind a cluster file agree, for 2, 6 and 10 queries (CPC Table 5)."""
    from tag2mask.clusters.refine import replay as again

    _, votings = again(file)
    for voting in votings:
        Console().print(_table(voting))


def _tree(made: Clusters) -> Tree:
    tree = Tree(Text(f"{made.num_clusters} clusters of {len(made.tags)} tags: {made.source}"))
    for name, held in zip(made.names, made.members, strict=True):
        branch = tree.add(Text(f"{name} ({len(held)})", style="bold"))
        branch.add(Text(", ".join(held)))
    return tree


def _table(voting: "Voting") -> Table:
    from tag2mask.clusters.vote import stability as rows

    table = Table(
        "R",
        "winner's share",
        "distinct",
        "adjusted Rand",
        "same winner as all",
        title=Text(str(voting)),
        title_justify="left",
    )
    for row in rows(voting.answers):
        cells = (
            f"{row.share:.2f}",
            f"{row.distinct:.1f}",
            f"{row.adjusted_rand:.3f}",
            f"{row.same_winner:.2f}",
        )
        table.add_row(str(row.queries), *cells)
    return table
