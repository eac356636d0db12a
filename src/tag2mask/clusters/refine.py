"""Algorithm 1 of PPC and CPC, self-refined clusters: many answers, a vote, then refinement.

Tags that are too many for one answer are clustered in several rounds.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tag2mask.clusters.answers import BadAnswerError, read_answer
from tag2mask.clusters.llm import Client
from tag2mask.clusters.membership import Clusters, load_clusters
from tag2mask.clusters.prompts import Prompts, load_prompts, repair_message, system_message
from tag2mask.clusters.transcript import Messages, Reply, Transcript
from tag2mask.clusters.vote import Configuration, canonical, vote
from tag2mask.config import ClusterSettings
from tag2mask.errors import ClusterError
from tag2mask.processes import parallel_map
from tag2mask.progress import log, track

Named = Mapping[str, tuple[str, ...]]  # cluster name -> its tags

REPAIRS = 3  # times that a query is asked again because its answer cannot be used
TAGS_PER_ANSWER = 150  # longer lists are clustered in several rounds
STORED = ("queries", "refinements", "overlap", "temperature", "structured")


@dataclass(frozen=True)
class Voting:
    """One run of Algorithm 1 over one list."""

    what: str  # "80 tags", "round 1, 1-143 of 1000"
    answers: tuple[Configuration, ...]  # the usable ones, in the order of the queries
    failed: int  # queries without a usable answer
    refinements: int
    settled: bool  # whether three configurations in a row were equal

    def __str__(self) -> str:
        agree = self.answers.count(vote(self.answers))
        failed = f", {self.failed} more failed" if self.failed else ""
        end = "settled" if self.settled else "not settled"
        return (
            f"{self.what}: {agree} of {len(self.answers)} answers agree{failed}; "
            f"{end} after {self.refinements} refinements"
        )


@dataclass
class SelfRefine:
    """Algorithm 1 for any list of tags. Answers come from the transcript, missing ones from `ask`.

    Without `ask` (a replay) a missing answer is a ClusterError.
    """

    settings: ClusterSettings
    prompts: Prompts
    transcript: Transcript
    ask: Callable[[Messages], Reply] | None = None
    votings: list[Voting] = field(default_factory=list)

    def clusters(self, tags: Sequence[str]) -> Clusters:
        """Clusters of the tags.

        Raises ClusterError if a list gets no usable answer, or rounds do not make it shorter.
        """
        clusters, s = self._clusters(tags), self.settings
        source = (
            f"{s.llm} at {s.llm_url or 'OpenAI'}, temperature {s.temperature}, "
            f"{'overlapping clusters (PPC)' if s.overlap else 'a partition (CPC)'}; "
            f"{self.votings[-1]}"
        )
        return Clusters.from_mapping(clusters, source, self.transcript.path.name).of(tags)

    def _clusters(self, names: Sequence[str], number: int = 1) -> Named:
        """Clusters of the names. Of a long list parts are clustered, then their clusters."""
        parts = -(-len(names) // TAGS_PER_ANSWER)
        if parts <= 1:
            kind = "tags" if number == 1 else "groups of tags"
            return self._algorithm_1("", f"{len(names)} {kind}", names)
        message = "clusters: %d names are too many for one answer: round %d, %d parts"
        log.info(message, len(names), number, parts)
        groups: dict[str, tuple[str, ...]] = {}
        for part in range(parts):
            first, last = part * len(names) // parts, (part + 1) * len(names) // parts
            what = f"round {number}, {first + 1}-{last} of {len(names)}"
            scope = f"round {number} part {part + 1} "
            for name, members in self._algorithm_1(scope, what, names[first:last]).items():
                while name in groups:
                    name += f" ({part + 1})"
                groups[name] = members
        if len(groups) >= len(names):
            raise ClusterError(
                f"{self.settings.llm} makes {len(groups)} clusters of {len(names)}; "
                "a list this long needs a model that groups"
            )
        return {
            name: tuple(dict.fromkeys(tag for group in members for tag in groups[group]))
            for name, members in self._clusters(list(groups), number + 1).items()
        }

    def _algorithm_1(self, scope: str, what: str, names: Sequence[str]) -> Named:
        """Clusters of names that fit into one answer."""
        # Differs from CPC, where every answer can be used: an answer that cannot does not vote.
        answers = self._queries(scope, what, names)  # lines 2-5
        usable = [answer for answer in answers if answer]
        if not usable:
            raise ClusterError(
                f"{what}: none of {len(answers)} answers of {self.settings.llm} could be used; "
                f"see {self.transcript.path}"
            )
        configurations = tuple(map(canonical, usable))
        z = usable[configurations.index(vote(configurations))]  # line 6: z_0
        z, refinements, settled = self._refine(scope, z, names)  # lines 7-11
        failed = len(answers) - len(usable)
        self.votings.append(Voting(what, configurations, failed, refinements, settled))
        log.info("clusters: %s", self.votings[-1])
        return z

    def _queries(self, scope: str, what: str, names: Sequence[str]) -> list[Named | None]:
        """Lines 2-5: R answers to p_gen, asked at once. None for a query without a usable one."""
        R, data = self.settings.queries, {"categories": names}

        def ask(number: int) -> Named | None:
            return self._query(f"{scope}initial {number}", "initial", data)

        try:
            answers = parallel_map(ask, range(1, R + 1), threads=R)
            return list(track(answers, f"answers for {what}", total=R))
        except BaseException:
            log.info("clusters: stopping; answers under way are waited for and kept")
            raise

    def _refine(self, scope: str, z: Named, names: Sequence[str]) -> tuple[Named, int, bool]:
        """Lines 7-11: (z_t, uses of p_refine, whether three configurations in a row were equal)."""
        # Differs from CPC, which refines until three are equal: an unusable answer or the set
        # number of refinements ends it too. PPC's "unchanged after multiple iterations" is read
        # as CPC's three. The categories are sent again beside z_t.
        history = [canonical(z)]
        for t in range(self.settings.refinements):
            clusters = [{"name": name, "tags": tags} for name, tags in z.items()]
            data = {"categories": names, "clusters": clusters}
            answer = self._query(f"{scope}refine {t + 1}", "refine", data)  # line 8
            if answer is None:
                return z, t, False
            z = answer
            history.append(canonical(z))
            if len(history) >= 3 and len(set(history[-3:])) == 1:  # line 9: s(z_t+1, z_t, z_t-1)
                return z, t + 1, True
        return z, self.settings.refinements, False

    def _query(self, name: str, prompt: str, data: dict[str, Any]) -> Named | None:
        """M(prompt || data): a usable answer, after repairs if needed; None if there is none."""
        names, overlap = data["categories"], self.settings.overlap
        messages = [
            {"role": "system", "content": system_message(getattr(self.prompts, prompt), overlap)},
            {"role": "user", "content": json.dumps(data, ensure_ascii=False)},
        ]
        for _ in range(REPAIRS + 1):
            reply = self.transcript.reply(name, messages, self.ask)
            try:
                return read_answer(reply.text, reply.finish, names, overlap)
            except BadAnswerError as error:
                faults = error.args
            log.info("clusters: %s: unusable answer: %s", name, " ".join(faults[:3]))
            messages = [
                *messages,
                {"role": "assistant", "content": reply.text or "(nothing)"},
                {"role": "user", "content": repair_message(faults, len(names))},
            ]
        log.info("clusters: %s: given up after %d unusable answers", name, REPAIRS + 1)
        return None


def ask_clusters(tags: Sequence[str], settings: ClusterSettings, path: Path) -> Clusters:
    """Clusters of these tags by the language model `settings.llm`; answers are kept in `path`.

    Answers that are kept there are not asked again. Raises ClusterError if the server refuses or
    does not answer.
    """
    url = settings.llm_url or os.environ.get("OPENAI_BASE_URL")  # the client would read it, too
    settings = settings.model_copy(update={"llm_url": url})
    prompts, client, transcript = load_prompts(settings.prompts), Client(settings), Transcript(path)
    stored = {"model": settings.llm, "url": url or "", "prompts": asdict(prompts)}
    transcript.start(stored | {name: getattr(settings, name) for name in STORED}, tags)
    try:
        return SelfRefine(settings, prompts, transcript, client.ask).clusters(tags)
    finally:
        tokens_in = sum(reply.tokens_in or 0 for reply in transcript.asked)
        tokens_out = sum(reply.tokens_out or 0 for reply in transcript.asked)
        tokens = f"{tokens_in:,} tokens in, {tokens_out:,} out"
        log.info("clusters: %s: %d answers, %s", settings.llm, len(transcript.asked), tokens)


def replay(path: Path) -> tuple[Clusters, list[Voting]]:
    """A cluster file made again from its transcript, without a network, and every vote.

    Raises ClusterError if there is no transcript, or it does not fit.
    """
    clusters = load_clusters(path)
    if not clusters.transcript:
        raise ClusterError(f"{path}: no language model made these clusters ({clusters.source})")
    transcript = Transcript(path.parent / clusters.transcript)
    if not transcript.header:
        raise ClusterError(f"{transcript.path} is missing or empty; put it beside {path.name}")
    stored = transcript.header["settings"]
    try:
        prompts = Prompts(**stored["prompts"])
        settings = ClusterSettings(
            llm=stored["model"], llm_url=stored["url"], **{name: stored[name] for name in STORED}
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise ClusterError(f"{transcript.path}: unknown settings in its header ({error})") from None
    algorithm = SelfRefine(settings, prompts, transcript)
    return algorithm.clusters(transcript.header["tags"]), algorithm.votings
