"""All tasks together: which runs are pooled, and what their losses, ranks and times come to."""

import numpy as np
import pytest
from made_up_experiments import METHODS, write_tasks
from made_up_runs import evaluation, incumbent, spec_of, write_run

from bench.records import Manifest, write_manifest
from reports.figures import profiles, summary
from reports.pooling import pooled
from reports.selection import NoData
from reports.statistics import bootstrapped
from reports.tables import read_tables


def test_losses_ranks_and_times_are_those_over_all_tasks(tmp_path):
    estimates = summary.estimate(write_tasks(tmp_path, METHODS, late=2))
    assert (estimates.tasks, estimates.count) == (2, 6)
    table = estimates.summary.set_index("label")
    ratios = {"Fixed": (1.0, 1.6), "Adam": (1.25, 1.0), "Global OHO": (0.5, 2.0)}  # over .4 and over .5
    for label, pair in ratios.items():
        middle = np.log(pair).repeat(3)[1:-1]  # a quarter of six is cut at either end
        assert table.loc[label, "loss"] == pytest.approx(np.exp(middle.mean()))
    assert table["rank"].to_dict() == pytest.approx({"Fixed": 2.0, "Adam": 2.0, "Global OHO": 2.0})
    assert table["score"].to_dict() == pytest.approx({"Fixed": 0.5, "Adam": 0.5, "Global OHO": 1 / 3})
    # OHO is at .4 on the first task after twice the time of Fixed: (4 - 2) / (4 - 1) of the score, on half of the problems.
    assert table["reached"].to_dict() == {"Fixed": 3, "Adam": 3, "Global OHO": 3}


def test_each_task_has_its_own_budget_the_largest_that_it_was_run_with(tmp_path):
    write_tasks(tmp_path, METHODS)
    longer = []
    for name, loss in (("fixed", 0.3), ("adam", 0.1)):  # without Global OHO
        for seed in (0, 1):
            spec = spec_of(name, seed, task="mnist-mlp")
            spec["budget"]["amount"] = 60.0
            longer.append(write_run(tmp_path, spec, [incumbent(100, loss), evaluation(100, loss)]))
    write_manifest(tmp_path, Manifest("longer", ("summary",), {}, tuple(longer)))
    tables = read_tables(tmp_path)
    estimates = summary.estimate(tables)
    assert set(estimates.problems["label"]) == {"Fixed", "Adam"}
    budgets = estimates.problems.groupby("task")[["budget", "seed"]].nunique()
    assert budgets.to_dict("index") == {"digits-mlp": {"budget": 1, "seed": 3}, "mnist-mlp": {"budget": 1, "seed": 2}}
    said = "Budgets of a run: digits-mlp: 2 counted seconds, 3 seeds; mnist-mlp: 60 counted seconds, 2 seeds."
    for figure in (summary, profiles):
        own = figure.estimate(tables)
        assert said in figure.caption(own)
        assert "mnist-mlp: 60 counted seconds" in " ".join(figure.draw(own).get_supxlabel().split())


def test_plain_steps_are_as_long_as_they_last(tmp_path):
    write_tasks(tmp_path, METHODS)
    ids = []
    for name in METHODS:
        spec = spec_of(name, 0, task="mnist-mlp")
        spec["budget"] = {"unit": "plain_steps", "amount": 1000}
        records = [incumbent(100, 0.1), evaluation(100, 0.1)]
        ids.append(write_run(tmp_path, spec, records, plain_step={"seconds": 0.001}))
    write_manifest(tmp_path, Manifest("in-steps", ("summary",), {}, tuple(ids)))
    assert set(pooled(read_tables(tmp_path).runs)["unit"]) == {"seconds"}  # 2 s are more than 1,000 steps of 1 ms


def test_with_few_tasks_the_figure_says_so(tmp_path):
    estimates = summary.estimate(write_tasks(tmp_path, METHODS))
    said = "2 tasks: fewer than 5 say nothing across tasks"
    assert summary.draw(estimates).get_suptitle() == said
    assert summary.findings(estimates)[0] == f"{said}."
    assert said in summary.caption(estimates)


def test_an_untrained_model_is_infinitely_bad(tmp_path):
    tables = write_tasks(tmp_path, METHODS)
    tables.runs.loc[tables.runs["label"] == "Global OHO", "selected_step"] = 0
    table = summary.estimate(tables).summary.set_index("label")
    assert table.loc["Global OHO", "loss"] == np.inf
    assert table.loc["Global OHO", "rank"] == 3.0


@pytest.mark.parametrize("figure", [summary, profiles])
def test_methods_are_those_of_every_experiment(figure, tmp_path):
    tables = write_tasks(tmp_path, METHODS | {"step": (0.01,)})
    found = figure.estimate(tables)
    assert "Step" not in set((found.problems if figure is summary else found.ratios)["label"])


def test_where_time_is_a_budget_equal_steps_are_left_out(tmp_path):
    write_tasks(tmp_path, METHODS)
    spec = spec_of("fixed", 0)
    spec["budget"] = {"unit": "steps", "amount": 100}
    ids = write_run(tmp_path, spec, [incumbent(100, 0.1), evaluation(100, 0.1)])
    write_manifest(tmp_path, Manifest("stepped", ("summary",), {}, (ids,)))
    assert set(pooled(read_tables(tmp_path).runs)["unit"]) == {"seconds"}


def test_without_two_methods_in_common_it_is_a_sentence(tmp_path):
    tables = write_tasks(tmp_path, {"fixed": (0.1, 0.1), "adam": (0.1,)})
    with pytest.raises(NoData, match="2 tasks have no two methods in common"):
        summary.estimate(tables)


def test_a_bootstrap_keeps_the_weight_of_strata_and_few_values_have_a_range():
    values = [1.0] * 5 + [3.0] * 5
    estimate = bootstrapped(values, lambda values: values.mean(-1), strata=["a"] * 5 + ["b"] * 5)
    assert estimate == (2.0, 2.0, 2.0)
    assert bootstrapped([1.0, 2.0, 6.0], lambda values: values.mean(-1), strata=[0, 0, 0]) == (3.0, 1.0, 6.0)


def test_the_target_is_one_that_half_of_a_methods_runs_reach(tmp_path):
    """Two of Adam's three runs are lost; its one good validation loss is no target for the others."""
    tables = write_tasks(tmp_path, METHODS)
    adam = tables.runs[tables.runs["label"] == "Adam"]
    lost = adam.index[adam["seed"] > 0]
    tables.runs.loc[lost, "selected_step"] = 0
    tables.runs.loc[adam.index, "incumbent_validation_loss"] = 1e-3
    reached = summary.estimate(tables).summary.set_index("label")["reached"]
    assert reached["Fixed"] == 6


@pytest.mark.parametrize(("problems", "ends"), [(3, "("), (6, "[")])
def test_few_problems_have_ranges_in_parentheses(problems, ends, tmp_path):
    losses = {name: values[: problems // 3] for name, values in METHODS.items()}
    cells = summary.published_rows(summary.estimate(write_tasks(tmp_path, losses)))[1][1:4]
    assert all(ends in cell for cell in cells), cells
