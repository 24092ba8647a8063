"""Laws of whole numbers: within their bounds, and each number as likely as the law says."""

import math
from collections import Counter

import pytest
from pydantic import ValidationError

from bench.protocol import Dimension

QUANTILES = [(n + 0.5) / 300 for n in range(300)]


def counts(**law):
    return Counter(Dimension(**law, integer=True).at(fraction) for fraction in QUANTILES)


def test_whole_numbers_of_a_uniform_law_are_equally_likely():
    assert counts(low=1, high=3) == {1: 100, 2: 100, 3: 100}
    assert counts(low=0, high=1) == {0: 150, 1: 150}


def test_whole_numbers_lie_within_bounds_that_are_none():
    assert counts(low=2.5, high=3.5) == {3: 300}
    assert set(counts(low=0.6, high=3.5, log=True)) == {1, 2, 3}
    law = Dimension(low=2.5, high=3.5, integer=True)
    assert {law.at(0), law.at(1), law.near(3, 0.5), law.near(3, 2), law.coordinate(2.6)} == {3}


def test_a_whole_number_near_another_is_another_one():
    law = Dimension(low=1, high=100, log=True, integer=True)
    assert [law.near(value, 1.25) for value in (1, 2, 3, 100)] == [2, 3, 4, 100]
    assert [law.near(value, 0.8) for value in (1, 2, 3, 100)] == [1, 1, 2, 80]
    assert [law.near(value, 1) for value in (1, 2)] == [1, 2]
    law = Dimension(low=-2, high=2, integer=True)
    assert [law.near(value, 1.25) for value in (-1, 0, 1)] == [-2, 1, 2]
    assert [law.near(value, 0.8) for value in (-1, 0, 1)] == [0, -1, 0]


def test_whole_numbers_of_a_logarithmic_law_are_its_values_rounded():
    law = Dimension(low=100, high=100_000, log=True, integer=True)
    for fraction in QUANTILES:
        assert law.at(fraction) == round(100 * 1000**fraction)
        assert isinstance(law.at(fraction), int)


def test_a_law_without_a_whole_number_is_refused():
    with pytest.raises(ValidationError, match=r"there is no whole number from low 0\.2 to high 0\.8"):
        Dimension(low=0.2, high=0.8, integer=True)
    assert math.isclose(Dimension(low=0.2, high=0.8).at(0.5), 0.5)
