"""Durations and budgets in words."""

import pytest

from bench.records.durations import amount_of


@pytest.mark.parametrize(
    ("amount", "unit", "said"),
    [(1, "epochs", "1 epoch"), (1.5, "epochs", "1.5 epochs"), (1, "plain_steps", "1 plain step"), (0, "steps", "0 steps")],
)
def test_one_of_a_unit_is_singular(amount, unit, said):
    assert amount_of(amount, unit) == said
