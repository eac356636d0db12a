"""Many answers to one: the vote of CPC Algorithm 1, and how stable it is (CPC Table 5)."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

Configuration = frozenset[frozenset[str]]  # names and order of clusters do not count

SUBSETS = 1000  # if there are more ways to draw R answers, this many are drawn at random


def canonical(clusters: Mapping[str, Iterable[str]]) -> Configuration:
    """{cluster name: its tags} to the set of sets that is voted on."""
    return frozenset(map(frozenset, clusters.values()))


def vote(answers: Sequence[Configuration]) -> Configuration:
    """z_0, the most frequent configuration (CPC Algorithm 1, line 6).

    A tie goes to a configuration with the most frequent number of clusters (the smallest such
    number), then to the one closest to all answers (mean adjusted Rand index), then to the first
    in alphabetical order.
    """
    # Differs from CPC 3.2, where the majority fixes the number of clusters. That can exclude the
    # most frequent configuration (one configuration 4 times, six different ones of another size),
    # against line 6 of CPC's own Algorithm 1.
    counts = Counter(answers)
    tied = [answer for answer, count in counts.items() if count == max(counts.values())]
    if len(tied) == 1:
        return tied[0]
    sizes = Counter(map(len, answers))
    number = min(size for size, count in sizes.items() if count == max(sizes.values()))

    def order(configuration: Configuration) -> tuple[bool, float, list[list[str]]]:
        closeness = float(np.mean([adjusted_rand(configuration, other) for other in answers]))
        names = sorted(map(sorted, configuration))
        return len(configuration) != number, -round(closeness, 9), names

    return min(tied, key=order)


@lru_cache(4096)
def adjusted_rand(a: Configuration, b: Configuration) -> float:
    """Agreement of two configurations of the same tags: 1 if equal, about 0 by chance.

    The adjusted Rand index for partitions. For overlapping clusters the Omega index (Collins and
    Dent 1988), which is the same number where no tags overlap: a pair of tags agrees if it is
    together in as many clusters of a as of b.
    """
    tags = sorted(frozenset().union(*a))
    together_a, together_b = _together(a, tags), _together(b, tags)
    if not len(together_a):
        return 1.0
    observed = np.mean(together_a == together_b)
    times = max(together_a.max(), together_b.max()) + 1
    shares = [np.bincount(t, minlength=times) / len(t) for t in (together_a, together_b)]
    chance = float(np.prod(shares, axis=0).sum())
    return 1.0 if chance == 1 else float((observed - chance) / (1 - chance))


def _together(configuration: Configuration, tags: Sequence[str]) -> np.ndarray:
    """In how many clusters each pair of tags is together: (num_tags * (num_tags - 1) / 2,)."""
    M = np.array([[tag in cluster for cluster in configuration] for tag in tags], np.float32)
    return (M @ M.T)[np.triu_indices(len(tags), 1)].astype(np.int64)


class Stability(NamedTuple):
    """How far R answers agree (CPC Table 5): means over the ways to draw R of all answers."""

    queries: int  # R
    share: float  # of the answers that are the winning configuration
    distinct: float  # configurations
    adjusted_rand: float  # between two answers
    same_winner: float  # share of the draws with the same winner as all answers


def stability(
    answers: Sequence[Configuration], queries: Sequence[int] = (2, 6, 10)
) -> list[Stability]:
    """The rows of CPC Table 5 from one set of answers. Rows that need more answers are left out."""
    return [_stability(answers, R) for R in queries if len(answers) >= R]


def _stability(answers: Sequence[Configuration], R: int) -> Stability:
    draws: Iterable[Sequence[Configuration]] = combinations(answers, R)
    if comb(len(answers), R) > SUBSETS:
        rng = random.Random(0)
        draws = [rng.sample(answers, R) for _ in range(SUBSETS)]
    drawn = list(map(list, draws))
    winner, winners = vote(answers), [vote(draw) for draw in drawn]
    shares = [draw.count(won) / R for draw, won in zip(drawn, winners, strict=True)]
    rands = [adjusted_rand(a, b) for draw in drawn for a, b in combinations(draw, 2)]
    return Stability(
        R,
        share=float(np.mean(shares)),
        distinct=float(np.mean([len(set(draw)) for draw in drawn])),
        adjusted_rand=float(np.mean(rands)) if rands else 1.0,
        same_winner=float(np.mean([won == winner for won in winners])),
    )
