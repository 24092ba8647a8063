"""Comparisons of pairs: against SciPy, by hand, and by how often they are wrong."""

import math

import numpy as np
import pytest
from scipy.stats import wilcoxon

from reports.comparisons import compare, holm, probability_of_improvement, seeds_needed, signed_rank


@pytest.mark.parametrize("count", [3, 5, 8, 12])
def test_signed_rank_is_scipys_exact_one(count):
    values = np.random.default_rng(count).normal(0.4, size=count)
    assert signed_rank(values) == pytest.approx(wilcoxon(values, method="exact").pvalue)


def test_signed_rank_of_many_is_near_the_exact_one():
    values = np.random.default_rng(0).normal(0.3, size=20)
    assert signed_rank(values) == pytest.approx(wilcoxon(values, method="exact").pvalue, abs=0.005)


def test_signed_rank_takes_infinities_and_zeros():
    assert signed_rank([math.inf, 1.0, 2.0]) == 0.25
    assert signed_rank([0.0, 0.0]) == 1.0
    assert signed_rank([]) == 1.0


def test_few_seeds_separate_nothing():
    assert signed_rank([1e9] * 5) == pytest.approx(2**-4)


def test_a_true_hypothesis_is_rejected_as_often_as_it_says():
    generator = np.random.default_rng(1)
    rejected = np.mean([signed_rank(generator.normal(size=8)) < 0.05 for _ in range(2_000)])
    assert 0.02 < rejected < 0.06


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_probability_of_improvement_counts_pairs_and_ties():
    assert probability_of_improvement([1, 2], [2, 3]) == (1 + 1 + 0.5 + 1) / 4
    assert probability_of_improvement([math.inf], [1.0]) == 0.0


def test_pairs_are_of_the_same_seed_and_a_lost_run_is_a_bad_one():
    losses = {"ours": {0: 0.1, 1: 0.2, 2: 0.3}, "theirs": {0: 0.2, 1: 0.25, 7: 0.0}, "lost": {0: math.nan, 1: 0.3, 2: 0.4}}
    first, second = compare(losses, "ours")
    assert (first.second, first.n) == ("lost", 3)
    assert first.difference.value == pytest.approx(-0.1)
    assert first.improvement == pytest.approx(1.0 - 0.5 / 9)
    assert (second.second, second.n) == ("theirs", 2)
    assert second.difference.value == pytest.approx(-0.075)
    assert [c.corrected for c in (first, second)] == [0.5, 0.5]


def test_as_many_seeds_as_it_says_do_separate():
    generator = np.random.default_rng(2)
    needed = seeds_needed(generator.normal(0.5, 1.0, size=4_000))
    assert 32 <= needed <= 40
    power = np.mean([wilcoxon(generator.normal(0.5, 1.0, size=needed)).pvalue < 0.05 for _ in range(500)])
    assert 0.72 < power < 0.88
    assert seeds_needed(generator.normal(0.05, 1.0, size=4_000)) is None  # more than 200
    assert seeds_needed([1.0, 1.0 + 1e-9]) == 6
    assert seeds_needed([1.0]) is seeds_needed([1.0, math.inf]) is seeds_needed([1.0, -1.0]) is None


def test_methods_without_a_common_seed_are_not_compared():
    found = compare({"a": {0: 0.1, 1: 0.2}, "b": {2: 0.3}, "c": {1: 0.4}}, "a")
    assert [comparison.second for comparison in found] == ["c"]
