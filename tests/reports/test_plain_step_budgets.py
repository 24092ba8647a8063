"""Budgets in plain steps: runs of unlike machines are comparable, and axes have both units."""

import itertools

import pandas as pd
import pytest
from made_up_runs import ENVIRONMENT, evaluation, incumbent, spec_of, write_run

from bench.records import Manifest, write_manifest
from reports import style, words
from reports.clocks import unlike_clocks
from reports.figures import anytime, performance
from reports.plain_steps import second_axis
from reports.replay import at_budgets, describe
from reports.selection import comparable, void
from reports.style import figure_style
from reports.tables import read_tables

SECONDS = {"oho-global": 0.002, "fixed": 0.004}
"""Of a plain step, on the machine of a method's runs."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Each run finds two models, after 100 and 200 of its 200 plain steps."""
    root = tmp_path_factory.mktemp("plain-steps")
    ids = []
    for name, seconds in SECONDS.items():
        for seed in range(2):
            spec = {**spec_of(name, seed), "budget": {"unit": "plain_steps", "amount": 200}}
            records = [
                {**make(used, loss), "used": used, "counted_seconds": used * seconds}
                for used, loss in ((100, 0.9), (200, 0.4)) for make in (incumbent, evaluation)
            ]  # fmt: skip
            environment = {**ENVIRONMENT, "node": name, "device_name": f"the {name} machine"}
            ids.append(write_run(root, spec, records, plain_step={"seconds": seconds}, environment=environment))
    write_manifest(root, Manifest("timed", ("performance", "anytime"), {}, tuple(ids)))
    return root


def test_runs_of_unlike_machines_are_compared_in_plain_steps(results):
    runs = comparable(read_tables(results).runs)
    assert unlike_clocks(runs, in_seconds=True) is None
    assert unlike_clocks(runs.assign(unit="seconds"))
    assert words.budgets(runs) == "200 plain steps (0.4 to 0.8 counted seconds, by machine)"
    rows = performance.estimate(read_tables(results)).of("own").set_index("method")
    assert rows["seconds"].to_dict() == pytest.approx(dict.fromkeys(SECONDS, 200 * 0.003))


def test_axes_have_both_units(results):
    tables = read_tables(results)
    below, above = anytime.draw(anytime.estimate(tables)).axes
    assert below.get_xlabel() == "Budget used (plain steps)"
    assert above.get_xlabel() == "the same in counted seconds"
    assert above.get_xlim() == pytest.approx([0.003 * limit for limit in below.get_xlim()])
    title = anytime.interactive(anytime.estimate(tables)).layout.xaxis.title.text
    assert title.replace("<br>", " ") == "Budget used (plain steps; 1,000 are 3 counted seconds)"
    below, above = performance.draw(performance.estimate(tables)).axes
    assert below.get_xlabel().startswith("Counted seconds")
    assert above.get_xlim() == pytest.approx([limit / 0.003 for limit in below.get_xlim()])


@pytest.mark.parametrize(("low", "high"), [(1, 24), (16, 57), (0.9, 1.1)])
def test_labels_of_neither_axis_touch(low, high):
    with figure_style():
        figure, panels = style.panels(1, 3, height=1.5)
        for axes in panels:
            axes.set_xlim(low, high)
            style.log_scale(axes, "x")
            second_axis(axes, 412.0, "the same in plain steps")
        figure.canvas.draw()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        inside = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
        assert len(inside) > 1
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(sorted(inside, key=lambda box: box.x0)))


def test_replay_takes_plain_steps(results):
    table = at_budgets(results, 150)
    assert set(table["test_loss"]) == {0.9}
    assert "after so many plain steps of 200" in describe(table)


def test_a_disturbed_clock_voids_them():
    columns = {"experiment": "timed", "run": ["a", "b"], "status": "budget_reached", "unit": "plain_steps"}
    assert void(pd.DataFrame({**columns, "disturbed_because": ["it slept", ""]}))
