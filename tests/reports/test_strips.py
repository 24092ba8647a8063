"""Points on lines: which are joined, which are lost, and where the axis is logarithmic."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports.strips import MANY, THREAD, Strip, draw_strips


def drawn(*values):
    axes = Figure().subplots()
    draw_strips(axes, [Strip(f"method {n}", pd.Series(losses, dtype=float)) for n, losses in enumerate(values)])
    return axes


def threads(axes):
    return [line.get_xdata().tolist() for line in axes.get_lines() if line.get_color() == THREAD]


def test_runs_of_a_seed_are_joined_with_a_gap_where_one_is_lost():
    axes = drawn([0.2, 0.3, 0.4], [0.3, np.nan, 0.5])
    assert threads(axes) == [[0.2, 0.3], [0.3, pytest.approx(np.nan, nan_ok=True)], [0.4, 0.5]]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.3", "–", "0.5", "1/3", "median", "lost"]


def test_a_median_of_lost_runs_is_infinite():
    axes = drawn([0.2, 0.3, 0.4], [0.3, np.nan, np.nan])
    assert [text.get_text() for text in axes.texts][2:4] == ["∞", "2/3"]


def test_many_runs_are_not_joined():
    many = np.linspace(0.2, 0.4, MANY)
    assert threads(drawn(many, many)) == []
    assert len(threads(drawn(many[:-1], many[:-1]))) == MANY - 1


@pytest.mark.parametrize(("highest", "scale"), [(0.9, "linear"), (1.1, "log")])
def test_the_axis_is_logarithmic_where_values_are_far_apart(highest, scale):
    assert drawn([0.2, 0.3, highest]).get_xscale() == scale
