"""Kinds of steps: the next and the last meta-step are those that a look at every step finds."""

import pytest

import oho
from oho.step_kinds import StepKinds


@pytest.mark.parametrize(("every", "first"), [(1, 0), (3, 0), (4, 7), (7, 2)])
def test_the_next_and_the_last_meta_step(every, first):
    kinds = StepKinds(oho.Windows(5, 3, 8), every, first, ("lr",))
    makes = [step for step in range(1, 200) if kinds.is_meta(step)]
    for step in range(100):
        assert kinds.next_meta(step) == next(later for later in makes if later > step)
        assert kinds.last_meta(step) == max((earlier for earlier in makes if earlier <= step), default=0)


def test_plain_steps_before_a_step_are_those_since_the_last_tuned_one():
    kinds = StepKinds(oho.Windows(2, 1, 4), 1, 0, ("lr",))  # tuned: 1, 2, 6, 10
    assert [kinds.plain_before(step) for step in range(1, 8)] == [0, 0, 0, 1, 2, 3, 0]


def test_an_optimizer_that_tunes_nothing_makes_no_meta_step():
    kinds = StepKinds(oho.Windows(2, 1, 4), 1, 0, ())
    assert kinds.next_meta(0) is None
    assert kinds.last_meta(10) == 0
