"""The papers' tables as commands:

    python benchmarks/papers.py cpc4 --data tags.csv --val val.csv --val-masks masks --out OUT

ppc3  PPC, Table III: the original framework, with the class token, with the cluster token
cpc4  CPC, Table 4: the original framework, + cluster token, + self refine, + contrastive learning
cpc5  CPC, Table 5: clusters of R = 2, 6 and 10 answers of a language model

Each row and seed is a `tag2mask run` through to the segmenter, with the settings of --recipe and
of --settings. Several tables share their common rows. A run that is done is skipped, and one that
was stopped resumes: run the command again. Writes OUT/papers.md, papers.svg, and pictures of masks
and score maps (CPC, Fig. 4 to 6).

Clusters come from stored answers of a language model (--answers), or with
--settings --clusters llm --clusters.llm NAME from a model that is asked now.
"""

import argparse
import hashlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs import made_on
from quality import work_off

from tag2mask.api import run_config
from tag2mask.cli.arguments import parse_config
from tag2mask.clusters import PRESETS, Clusters, load_clusters, make_clusters, membership
from tag2mask.clusters.refine import replay
from tag2mask.clusters.vote import Configuration, canonical, vote
from tag2mask.config import STAGE_NAMES, Config
from tag2mask.config_files import changed_config
from tag2mask.errors import ConfigError, Tag2MaskError
from tag2mask.files import read_json, write_json

STAGES = [name for name in STAGE_NAMES if name not in ("check", "report")]
ANSWERS = ("voc-llm", "coco-llm")  # the first that knows all tags is the default


@dataclass(frozen=True)
class Row:
    """A row of a table of the papers.

    clusters: none; overlapping (PPC); one: a single answer; refined: all of Algorithm 1; voted:
    the vote of `queries` answers.
    """

    table: str
    name: str
    paper: str  # mIoU of the paper's segmenter on VOC 2012 val
    token: str
    clusters: str = "none"
    queries: int = 0
    contrastive: bool = False


ROWS = (
    Row("ppc3", "original framework", "68.6", "none"),
    Row("ppc3", "+ class token", "69.8", "class"),
    Row("ppc3", "+ cluster token", "72.2", "cluster", "overlapping"),
    Row("cpc4", "original framework", "68.6", "none"),
    Row("cpc4", "+ cluster token", "71.1", "cluster", "one"),
    Row("cpc4", "+ self refine", "72.2", "cluster", "refined"),
    Row("cpc4", "+ contrastive learning", "73.4", "cluster", "refined", contrastive=True),
    Row("cpc5", "R = 2", "73.0 ± 0.2", "cluster", "voted", 2, contrastive=True),
    Row("cpc5", "R = 6", "73.1 ± 0.1", "cluster", "voted", 6, contrastive=True),
    Row("cpc5", "R = 10", "73.4", "cluster", "voted", 10, contrastive=True),
)
TABLES = tuple(dict.fromkeys(row.table for row in ROWS))


@dataclass(frozen=True)
class Job:
    """One row with one seed. Rows with the same settings and clusters are the same job."""

    name: str
    config: Config
    before: None = None  # it needs no other job


def perform_row(job: Job, options: argparse.Namespace) -> None:
    """Run all stages of a job and keep its figures."""
    start = time.time()
    metrics = run_config(job.config, STAGES).metrics
    parts = {name: metrics[name] for name in ("pseudo", "segmenter")}
    write_json(
        options.out / f"{job.name}.json",
        {"seed": job.config.seed, **parts, **made_on(time.time() - start)},
    )
    for name, part in parts.items():
        print(f"{job.name}: {name} {100 * part['miou']:.1f}")


class Answers:
    """The clusters of the rows, from stored answers or from a language model.

    Each seed has its share of the stored answers, in their order. Their vote is not refined:
    questions about clusters that did not win were never asked. A model that is asked now answers
    anew for each seed, and all of Algorithm 1 is done.
    """

    def __init__(self, options: argparse.Namespace, config: Config, tags: Sequence[str]):
        self.config, self.tags, self.folder = config.clusters, tuple(tags), options.out / "clusters"
        self.overlapping_file = PRESETS.get(options.overlapping, Path(options.overlapping))
        self.stored = None if self.config.llm else self._stored(options.answers)

    def _stored(self, given: str | None) -> Path:
        """The file of clusters that has its answers beside it."""
        for name in [given] if given else ANSWERS:
            path = PRESETS.get(name, Path(name))
            if given or set(self.tags) <= set(load_clusters(path).tags):
                return path
        raise ConfigError(
            f"neither {' nor '.join(ANSWERS)} knows all tags: give --answers FILE.json, made by "
            "`tag2mask clusters make`, or --settings --clusters llm --clusters.llm NAME"
        )

    @cached_property
    def pool(self) -> tuple[Configuration, ...]:
        """The answers to the first question, of all tags."""
        if not self.stored:
            self._ask("refined", self.config.queries, 0)
        votings = replay(self.stored or self.folder / "refined-0.json")[1]
        return votings[0].answers

    def sources(self, rows: Iterable[Row]) -> list[str]:
        """Where the clusters of rows come from, as sentences."""
        kinds = {row.clusters for row in rows} - {"none"}
        if not self.stored:
            return [f"{self.config.llm}, asked anew for each seed."] if kinds else []
        files = [self.overlapping_file] if "overlapping" in kinds else []
        files += [self.stored] if kinds - {"overlapping"} else []
        return [load_clusters(file).source for file in files]

    def clusters(self, row: Row, seed: int) -> Clusters | None:
        """The clusters of a row, with the tags of the data; None if there are too few answers."""
        if not self.stored:
            asked = {"one": 1, "overlapping": 1, "voted": row.queries}
            count = asked.get(row.clusters, self.config.queries)
            return self._ask(row.clusters, count, seed if row.clusters != "refined" else 0)
        if row.clusters == "overlapping":
            return load_clusters(self.overlapping_file)
        if row.clusters == "refined":
            return load_clusters(self.stored)
        if row.clusters == "one":
            return named(self.pool[seed % len(self.pool)], "one answer")
        if row.queries > len(self.pool):
            return None
        first = seed * row.queries  # seed 0 has the first answers, seed 1 the next ones
        voters = [self.pool[(first + i) % len(self.pool)] for i in range(row.queries)]
        return named(vote(voters), f"the vote of {row.queries} answers")

    def _ask(self, kind: str, queries: int, run: int) -> Clusters:
        """Ask the language model, unless its answers are there."""
        changes = {"queries": queries, "overlap": kind == "overlapping"}
        if kind == "one":
            changes["refinements"] = 0
        name = f"{kind}-{queries}-{run}" if kind == "voted" else f"{kind}-{run}"
        transcript = self.folder / f"{name}.transcript.jsonl"
        settings = self.config.model_copy(update=changes)
        clusters = make_clusters(self.tags, settings, transcript=transcript)
        clusters.save(self.folder / f"{name}.json")
        return clusters

    def file(self, row: Row, seed: int) -> Path | None:
        """The clusters of a row as a file, whose name is the same if the clusters are; None if
        there are too few answers. Raises ClusterError if a tag is in no cluster."""
        if (clusters := self.clusters(row, seed)) is None:
            return None
        membership(clusters, self.tags)
        groups = canonical(clusters.of(self.tags).as_mapping)
        result = named(groups, clusters.source)
        path = self.folder / f"{short_hash(repr(result.members))}.json"
        if not path.exists():
            result.save(path)
        return path


def named(groups: Configuration, source: str) -> Clusters:
    """Clusters in a fixed order, named by their tags."""
    members = sorted(map(sorted, groups))
    return Clusters.from_mapping({", ".join(tags): tags for tags in members}, source)


def short_hash(text: str) -> str:
    """Eight characters for the name of a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def job_of(row: Row, seed: int, answers: Answers, base: Config, out: Path) -> Job | None:
    """The job of a row and a seed; None if there are too few answers."""
    source = "none"
    if row.clusters != "none":
        if (path := answers.file(row, seed)) is None:
            return None
        source = str(path)
    changes: dict[str, Any] = {
        "seed": seed,
        "clusters": {"source": source, "llm": None},
        "classifier": {"token": row.token},
    }
    if not row.contrastive:
        changes["classifier"]["pce_weight"] = 0.0
    config = changed_config(base, changes)
    key = short_hash(config.model_dump_json(exclude={"out", "seed"}))
    name = f"{row.token}{'-contrastive' * row.contrastive}-{key}-{seed}"
    return Job(name, config.model_copy(update={"out": out / "runs" / name}))


def plan(
    tables: Sequence[str], answers: Answers, base: Config, options: argparse.Namespace
) -> dict[Row, dict[int, Job]]:
    """The jobs of each row, by seed. A row without enough answers is left out."""
    rows: dict[Row, dict[int, Job]] = {}
    for row in (row for table in tables for row in ROWS if row.table == table):
        for seed in options.seeds:
            if job := job_of(row, seed, answers, base, options.out):
                rows.setdefault(row, {})[seed] = job
    return rows


def in_order(rows: dict[Row, dict[int, Job]], seeds: Sequence[int]) -> Iterator[Job]:
    """The first seed of all rows first, so that a run that is stopped has most rows."""
    for seed in seeds:
        yield from (jobs[seed] for jobs in rows.values() if seed in jobs)


def results(rows: dict[Row, dict[int, Job]], out: Path) -> dict[Row, dict[int, dict[str, Any]]]:
    """The figures of the jobs that are done, by row and seed."""
    files = {
        row: {s: out / f"{job.name}.json" for s, job in jobs.items()} for row, jobs in rows.items()
    }
    return {
        row: {seed: read_json(file) for seed, file in by_seed.items() if file.exists()}
        for row, by_seed in files.items()
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "tables", nargs="+", choices=TABLES, metavar="TABLE", help=", ".join(TABLES)
    )
    parser.add_argument("--data", required=True, help="training photos and tags")
    parser.add_argument("--val", required=True, help="validation photos")
    parser.add_argument("--val-masks", required=True, help="folder of true masks of both")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and tables")
    parser.add_argument("--recipe", default="cpc", help="settings of all rows; default: cpc")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument(
        "--until", type=float, help="stop after so many seconds; run it again to resume"
    )
    parser.add_argument(
        "--answers", help="clusters with stored answers beside them: a file or a preset"
    )
    parser.add_argument("--overlapping", default="voc-ppc-llm", help="PPC's clusters")
    parser.add_argument("--photos", type=int, default=5, help="photos in the pictures")
    parser.add_argument(
        "--settings", nargs=argparse.REMAINDER, default=[], help="of `tag2mask run`, as there; last"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.out = options.out.resolve()
    options.scratch = options.out / "runs"
    options.scratch.mkdir(parents=True, exist_ok=True)
    argv = ["--recipe", options.recipe, "--data", options.data, "--val", options.val]
    argv += ["--val-masks", options.val_masks, "--out", str(options.out / "check")]
    # An exit runs the end of work_off, which stops the jobs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        base = parse_config([*argv, *options.settings])
        checked = run_config(base, ["check"])
        checked.check_evaluation()
        answers = Answers(options, checked.config, checked.table.tags)
        rows = plan(options.tables, answers, checked.config, options)
    except Tag2MaskError as error:
        sys.exit(f"papers.py: {error}")
    jobs = list(dict.fromkeys(in_order(rows, options.seeds)))
    failed = work_off(jobs, options, perform_row)
    from papers_page import write_page  # after the jobs, which need no pictures

    write_page(options, answers, rows, results(rows, options.out))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
