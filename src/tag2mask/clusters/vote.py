"""Many answers to one: canonical form, the vote of CPC Algorithm 1, and how stable it is (CPC Table 5)."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

Configuration = frozenset[frozenset[str]]  # names of clusters and order do not count

SUBSETS = 1000  # above this many ways to draw R answers, as many are drawn at random


def canonical(clusters: Mapping[str, Iterable[str]]) -> Configuration:
    """{cluster name: its tags} to the set of sets that is voted on."""
    return frozenset(frozenset(tags) for tags in clusters.values())


def _text(configuration: Configuration) -> list[list[str]]:
    return sorted(sorted(tags) for tags in configuration)


def vote(answers: Sequence[Configuration]) -> Configuration:
    """z_0, the most frequent configuration (CPC Algorithm 1, line 6).

    Ties go to a configuration with the number of clusters that most answers have (the smallest such number), then to the one
    closest to all answers (mean adjusted Rand index), then to the first in alphabetical order.
    """
    # Differs from CPC 3.2, which lets the majority fix the number of clusters outright: that can throw out the configuration that most
    # answers agree on (one configuration 4 times, six different ones of another size), against line 6 of its own Algorithm 1.
    counts = Counter(answers)
    tied = [
        configuration for configuration, count in counts.items() if count == max(counts.values())
    ]
    if len(tied) == 1:
        return tied[0]
    sizes = Counter(map(len, answers))
    number = min(size for size, count in sizes.items() if count == max(sizes.values()))

    def order(configuration: Configuration) -> tuple[bool, float, list[list[str]]]:
        closeness = np.mean([adjusted_rand(configuration, other) for other in answers])
        return len(configuration) != number, -round(float(closeness), 9), _text(configuration)

    return min(tied, key=order)


@lru_cache(4096)
def adjusted_rand(a: Configuration, b: Configuration) -> float:
    """Agreement of two configurations of the same tags: 1 the same, about 0 by chance. The adjusted Rand index for partitions.

    For overlapping clusters it is the Omega index (Collins and Dent 1988): a pair of tags agrees when it is together in as many
    clusters of one as of the other. Both are the same number where tags do not overlap.
    """
    tags = sorted(frozenset().union(*a))
    together_a, together_b = _together(a, tags), _together(b, tags)
    if not len(together_a):
        return 1.0
    observed = np.mean(together_a == together_b)
    times = max(together_a.max(), together_b.max()) + 1
    shares = (np.bincount(t, minlength=times) / len(t) for t in (together_a, together_b))
    chance = float(np.prod(list(shares), axis=0).sum())
    return 1.0 if chance == 1 else float((observed - chance) / (1 - chance))


def _together(configuration: Configuration, tags: Sequence[str]) -> np.ndarray:
    """In how many clusters each pair of tags is together: (num_tags * (num_tags - 1) / 2,)."""
    M = np.array([[tag in held for held in configuration] for tag in tags], np.float32)
    return (M @ M.T)[np.triu_indices(len(tags), 1)].astype(np.int64)


@dataclass(frozen=True)
class Stability:
    """How far R answers agree (CPC Table 5): means over the ways to draw R of the answers that there are."""

    queries: int  # R
    share: float  # of the answers that are the winning configuration
    distinct: float  # configurations
    adjusted_rand: float  # between two answers
    same_winner: float  # share of the draws whose vote ends as the vote of all answers


def stability(
    answers: Sequence[Configuration], queries: Sequence[int] = (2, 6, 10)
) -> list[Stability]:
    """The rows of CPC Table 5 from one set of answers; rows that would need more answers are left out."""
    winner = vote(answers)
    pairs = [[adjusted_rand(a, b) for b in answers] for a in answers]
    rows = []
    for R in queries:
        if len(answers) < R:
            continue
        draws: Iterable[Sequence[int]] = combinations(range(len(answers)), R)
        if comb(len(answers), R) > SUBSETS:
            rng = random.Random(0)
            draws = [rng.sample(range(len(answers)), R) for _ in range(SUBSETS)]
        rows.append(_row(R, [list(draw) for draw in draws], answers, winner, pairs))
    return rows


def _row(
    R: int,
    draws: list[list[int]],
    answers: Sequence[Configuration],
    winner: Configuration,
    pairs: list[list[float]],
) -> Stability:
    drawn = [[answers[i] for i in draw] for draw in draws]
    winners = [vote(some) for some in drawn]
    return Stability(
        R,
        share=float(
            np.mean([some.count(won) / R for some, won in zip(drawn, winners, strict=True)])
        ),
        distinct=float(np.mean([len(set(some)) for some in drawn])),
        adjusted_rand=float(
            np.mean([pairs[i][j] for draw in draws for i, j in combinations(draw, 2)])
        )
        if R > 1
        else 1.0,
        same_winner=float(np.mean([won == winner for won in winners])),
    )
