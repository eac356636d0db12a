from collections import Counter
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.clusters.vote import adjusted_rand, canonical, stability, vote


def clustering(*clusters: str):
    return canonical({str(i): tags.split() for i, tags in enumerate(clusters)})


A = clustering("cat dog", "cow", "car")
B = clustering("cat dog cow", "car")
C = clustering("cat", "dog cow", "car")


def test_names_and_order_do_not_count():
    assert canonical({"pets": ["cat", "dog"], "x": ["car"]}) == canonical(
        {"y": ["car"], "animals": ["dog", "cat"]}
    )


def test_votes_by_hand():
    assert vote([A, B, B]) == B
    assert (
        vote([B, A, A, B, C]) == A
    )  # A and B twice each; three of five answers have 3 clusters, as A has
    assert vote([A, B]) == B  # as many with 2 clusters as with 3: the smaller number
    D = clustering("cat", "dog", "cow car")
    # All once, all of 3 clusters, all equally close: the alphabet decides.
    assert (
        vote([D, C, A]) == vote([A, C, D]) == min([A, C, D], key=lambda x: sorted(map(sorted, x)))
    )
    assert vote([B]) == B


def test_a_tie_goes_to_what_is_closest_to_all():
    x, y, z = (
        clustering("f e d", "c b a"),
        clustering("f e", "d c b a"),
        clustering("f e c", "d b a"),
    )
    # By hand: x-y 0.324, x-z -0.111, y-z 0.324. So y is in the middle; the alphabet would say x.
    assert (
        round(adjusted_rand(x, y), 3) == round(adjusted_rand(y, z), 3) == 0.324
        and round(adjusted_rand(x, z), 3) == -0.111
    )
    assert vote([z, x, y]) == y
    x, y, z = (
        clustering("a d e", "b c f"),
        clustering("a b c d f", "e"),
        clustering("a d e f", "b c"),
    )
    assert vote([y, z, x]) == x  # 0.44 against 0.38 and 0.27, a difference smaller than one


def rand_by_contingency(a, b):
    """The adjusted Rand index as Hubert and Arabie write it: another way to the same number."""
    n = sum(map(len, a))
    both = sum(comb(len(i & j), 2) for i in a for j in b)
    in_a, in_b = (sum(comb(len(i), 2) for i in x) for x in (a, b))
    chance = in_a * in_b / comb(n, 2)
    most = (in_a + in_b) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


partitions = st.lists(st.integers(0, 4), min_size=2, max_size=12)


@given(st.data())
def test_adjusted_rand_is_hubert_and_arabies_on_partitions(data):
    first = data.draw(partitions)
    second = data.draw(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)))
    a, b = (
        frozenset(frozenset(str(i) for i, g in enumerate(x) if g == k) for k in set(x))
        for x in (first, second)
    )
    assert adjusted_rand(a, b) == pytest.approx(rand_by_contingency(a, b))
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand(b, a))


def test_omega_of_overlapping_clusters_by_hand():
    a, b = clustering("cat dog", "dog cow"), clustering("cat dog", "cow")
    # Pairs cat-dog, cat-cow, dog-cow: together 1, 0, 1 times and 1, 0, 0 times: 2 of 3 agree.
    # By chance (1/3 * 2/3) + (2/3 * 1/3) = 4/9.
    assert adjusted_rand(a, b) == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    # cat-dog is together twice in one, once in the other: 2 of 3 pairs agree, as by chance.
    assert adjusted_rand(
        clustering("cat dog", "cat dog cow"), clustering("cat dog cow")
    ) == pytest.approx(0)
    assert adjusted_rand(a, a) == 1
    assert adjusted_rand(clustering("cat"), clustering("cat")) == 1


def test_stability_by_hand():
    answers = [A, A, A, B]
    two, four = stability(answers, (2, 4, 6))
    # Of the 6 pairs 3 are A A. The 3 of A B are ties of 3 and 2 clusters: B, the smaller number.
    assert (two.queries, two.share, two.distinct, two.same_winner) == (
        2,
        pytest.approx((3 * 1 + 3 * 0.5) / 6),
        1.5,
        0.5,
    )
    assert two.adjusted_rand == pytest.approx((3 + 3 * rand_by_contingency(A, B)) / 6)
    assert (four.share, four.distinct, four.same_winner) == (0.75, 2, 1)
    assert four.adjusted_rand == pytest.approx(two.adjusted_rand)
    assert [row.queries for row in stability(answers, (6, 4, 2))] == [4, 2]
    (one,) = stability(answers, (1,))
    assert (one.share, one.distinct, one.adjusted_rand, one.same_winner) == (1, 1, 1, 0.75)


def test_many_answers_are_sampled_the_same_way_each_time():
    answers = [A] * 12 + [B] * 6
    assert stability(answers) == stability(answers)
    assert [row.queries for row in stability(answers)] == [2, 6, 10]


@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=10))
def test_the_winner_is_among_the_most_frequent_in_any_order(answers):
    counts = Counter(answers)
    winner = vote(answers)
    assert counts[winner] == max(counts.values())
    assert vote(answers[::-1]) == winner
    for row in stability(answers):
        draws = list(combinations(answers, row.queries))
        assert row.distinct == pytest.approx(sum(len(set(draw)) for draw in draws) / len(draws))
