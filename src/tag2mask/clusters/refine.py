"""Algorithm 1 of PPC and CPC: many answers, a vote, then refinement until nothing changes; long lists of tags in rounds."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tag2mask.clusters.answers import BadAnswerError, read_answer
from tag2mask.clusters.llm import Client, LanguageModel, bill
from tag2mask.clusters.membership import Clusters, load_clusters
from tag2mask.clusters.prompts import Prompts, repair_message, system_message
from tag2mask.clusters.transcript import Transcript
from tag2mask.clusters.vote import Configuration, canonical, vote
from tag2mask.errors import ClusterError
from tag2mask.progress import log, track

Named = Mapping[str, tuple[str, ...]]  # an answer: cluster name -> its tags

EXAMPLES = 8  # tags shown of each group, in the rounds of a long list


@dataclass(frozen=True)
class Voting:
    """One run of Algorithm 1 over one list."""

    what: str  # "80 tags", "tags 1-143 of 1000"
    answers: tuple[Configuration, ...]  # those that could be used, in the order of the queries
    failed: int  # queries whose answers never could
    refinements: int
    settled: bool  # whether the refinement ended by itself

    def __str__(self) -> str:
        agree = self.answers.count(vote(self.answers))
        failed = f", {self.failed} more failed" if self.failed else ""
        end = "settled" if self.settled else "not settled"
        return f"{self.what}: {agree} of {len(self.answers)} answers agree{failed}; {end} after {self.refinements} refinements"


class Algorithm:
    """Clusters for any list of tags; every answer comes from the transcript or, where it has none, from the client."""

    def __init__(self, settings: LanguageModel, transcript: Transcript, client: Client | None):
        self.settings = settings
        self.transcript = transcript
        self.client = client
        self.votings: list[Voting] = []

    def run(self, tags: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """{cluster name: its tags}. Lists longer than one answer are split, each part is clustered, then the clusters are.

        Raises ClusterError when a list gets no usable answer, or rounds do not make it shorter.
        """
        groups: dict[str, tuple[str, ...]] = {tag: (tag,) for tag in tags}
        limit = self.settings.tags_per_answer
        rounds = 0
        while len(groups) > limit:
            rounds += 1
            shorter = self._round(rounds, groups, limit)
            if len(shorter) >= len(groups):
                raise ClusterError(
                    f"{self.settings.model} makes {len(shorter)} clusters of {len(groups)}: long lists need a model that groups"
                )
            groups = shorter
        kind = "tags" if len(groups) == len(tags) else f"groups of {len(tags)} tags"
        return _merge(self._cluster("", f"{len(groups)} {kind}", groups), groups)

    def _round(self, number: int, groups: Named, limit: int) -> dict[str, tuple[str, ...]]:
        names = list(groups)
        parts = -(-len(names) // limit)
        log.info(
            "clusters: %d are too many for one answer (%d): round %d groups them in %d parts",
            len(names),
            limit,
            number,
            parts,
        )
        found: dict[str, tuple[str, ...]] = {}
        for part in range(parts):
            first, last = part * len(names) // parts, (part + 1) * len(names) // parts
            some = {name: groups[name] for name in names[first:last]}
            answer = self._cluster(
                f"round {number} part {part + 1} ",
                f"round {number}, {first + 1}-{last} of {len(names)}",
                some,
            )
            for name, tags in _merge(answer, some).items():
                found[_free(name, found)] = tags
        return found

    def _cluster(self, scope: str, what: str, groups: Named) -> Named:
        """Algorithm 1 over the keys of `groups`; the keys stand for themselves or for a group of tags each."""
        answers = self._queries(scope, what, groups)
        # Differs from CPC, which knows no answers that cannot be used: these do not vote, so the vote may be over fewer than R.
        usable = [(canonical(answer), answer) for answer in answers if answer]
        if not usable:
            raise ClusterError(
                f"{what}: none of {len(answers)} answers of {self.settings.model} could be used; see {self.transcript.path}"
            )
        winner = vote([configuration for configuration, _ in usable])
        z = next(answer for configuration, answer in usable if configuration == winner)
        z, refinements, settled = self._refine(scope, z, groups)
        voting = Voting(
            what, tuple(c for c, _ in usable), len(answers) - len(usable), refinements, settled
        )
        self.votings.append(voting)
        log.info("clusters: %s", voting)
        return z

    def _queries(self, scope: str, what: str, groups: Named) -> list[Named | None]:
        """Lines 3 to 5: R answers to the initial prompt, at once; None for one that failed."""
        system = system_message(
            self.settings.prompts.initial, self.settings.overlap, _are_groups(groups)
        )
        data = {"categories": _shown(groups)}
        R = self.settings.queries
        with ThreadPoolExecutor(R) as pool:
            jobs: list[Future[Named | None]] = [
                pool.submit(self._query, f"{scope}initial {r + 1}", system, data, groups)
                for r in range(R)
            ]
            try:
                for job in track(as_completed(jobs), f"answers for {what}", total=R):
                    job.result()
            except BaseException:
                log.info(
                    "clusters: stopping; the answers that are under way are waited for and kept"
                )
                pool.shutdown(wait=False, cancel_futures=True)
                if self.client:
                    self.client.stopped.set()
                raise
        return [job.result() for job in jobs]

    def _refine(self, scope: str, z: Named, groups: Named) -> tuple[Named, int, bool]:
        """Lines 7 to 11: (z_t, uses of the refine prompt, whether three configurations in a row were equal)."""
        system = system_message(
            self.settings.prompts.refine, self.settings.overlap, _are_groups(groups)
        )
        # Differs from CPC, which refines until three are equal, however long that takes: an answer of no use or a set number ends it too.
        # PPC's "unchanged after multiple iterations" is read as CPC's three. The categories are sent again beside z_t.
        history = [canonical(z)]
        for t in range(self.settings.refinements):
            data = {
                "categories": _shown(groups),
                "clusters": [{"name": name, "tags": tags} for name, tags in z.items()],
            }
            answer = self._query(f"{scope}refine {t + 1}", system, data, groups)
            if answer is None:
                return z, t, False
            z = answer
            history.append(canonical(z))
            if len(history) >= 3 and len(set(history[-3:])) == 1:
                return z, t + 1, True
        return z, self.settings.refinements, False

    def _query(self, name: str, system: str, data: dict[str, Any], groups: Named) -> Named | None:
        """One usable answer, asked again with its faults named if need be; None where it stays unusable."""
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": json.dumps(data, ensure_ascii=False)},
        ]
        for _ in range(self.settings.repairs + 1):
            reply = self.transcript.reply(name, messages, self.client.ask if self.client else None)
            try:
                return read_answer(reply.text, reply.finish, list(groups), self.settings.overlap)
            except BadAnswerError as error:
                faults = error.faults
            log.info("clusters: %s: answer not usable: %s", name, " ".join(faults[:3]))
            again = repair_message(faults, len(groups))
            messages = [
                *messages,
                {"role": "assistant", "content": reply.text or "(nothing)"},
                {"role": "user", "content": again},
            ]
        log.info(
            "clusters: %s: given up after %d answers that could not be used",
            name,
            self.settings.repairs + 1,
        )
        return None


def _are_groups(groups: Named) -> bool:
    return any(tags != (name,) for name, tags in groups.items())


def _shown(groups: Named) -> list[str] | dict[str, tuple[str, ...]]:
    """What the model reads of the list: the tags, or the groups with some of their tags."""
    return (
        {name: tags[:EXAMPLES] for name, tags in groups.items()}
        if _are_groups(groups)
        else list(groups)
    )


def _merge(answer: Named, groups: Named) -> dict[str, tuple[str, ...]]:
    """Clusters of groups to clusters of tags; of two that turn out the same (groups that overlap) the first stays."""
    merged: dict[frozenset[str], tuple[str, tuple[str, ...]]] = {}
    for name, members in answer.items():
        tags = tuple(dict.fromkeys(tag for member in members for tag in groups[member]))
        merged.setdefault(frozenset(tags), (name, tags))
    return dict(merged.values())


def _free(name: str, taken: Mapping[str, object]) -> str:
    n, free = 1, name
    while free in taken:
        n += 1
        free = f"{name} ({n})"
    return free


def ask_clusters(tags: Sequence[str], settings: LanguageModel, transcript: Path) -> Clusters:
    """Clusters of these tags by a language model; `transcript` keeps every answer, and those it has already are not asked again.

    Raises ClusterError when the server refuses or stays silent; what was answered until then is kept for the next call.
    """
    settings = replace(
        settings, url=settings.url or os.environ.get("OPENAI_BASE_URL", "")
    )  # the client would use it unseen
    answers = Transcript(transcript)
    client = Client(settings)
    answers.start(json.loads(json.dumps(asdict(settings))), tags)
    try:
        return _clusters(Algorithm(settings, answers, client), tags)
    finally:
        log.info("clusters: %s: %s", settings.model, bill(settings, answers.asked))


def _clusters(algorithm: Algorithm, tags: Sequence[str]) -> Clusters:
    found = algorithm.run(tags)
    settings = algorithm.settings
    kind = "overlapping clusters (PPC)" if settings.overlap else "a partition (CPC)"
    source = f"{settings.model} at {settings.url or 'OpenAI'}, temperature {settings.temperature}, {kind}; {algorithm.votings[-1]}"
    return Clusters.from_mapping(found, source, algorithm.transcript.path.name).of(tags)


def replay(path: Path) -> tuple[Clusters, list[Voting]]:
    """The clusters of a cluster file again from its transcript, without a network, and every vote that led there. Raises ClusterError."""
    stored = load_clusters(path)
    if not stored.transcript:
        raise ClusterError(
            f"{path}: no language model made these clusters, there is nothing to replay ({stored.source})"
        )
    transcript = Transcript(path.parent / stored.transcript)
    if not transcript.header:
        raise ClusterError(
            f"{transcript.path} is missing or empty; the transcript belongs beside {path.name}"
        )
    try:
        settings = LanguageModel(
            **transcript.header["settings"]
            | {"prompts": Prompts(**transcript.header["settings"]["prompts"])}
        )
    except TypeError as error:
        raise ClusterError(
            f"{transcript.path}: written by tag2mask {transcript.header['tag2mask']}, which knew other settings ({error})"
        ) from None
    algorithm = Algorithm(settings, transcript, None)
    return _clusters(algorithm, transcript.header["tags"]), algorithm.votings
