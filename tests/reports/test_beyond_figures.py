"""Figures that the paper does not have: from records to numbers exactly, to axes lightly."""

import numpy as np
import pytest
from made_up_experiments import drifting, write_drift, write_many
from made_up_runs import write_curves

from bench.records import ReportError
from reports.api import build_figure
from reports.figures import drift, many, sensitivity
from reports.selection import NoData


def swept(name, label, losses, seeds=(0, 1, 2)):
    """A method from several first learning rates; `losses` maps a rate to the loss of seed 0, others are .01 above."""
    return [
        (name, {"lr": lr, "label": f"{label} from {lr:g}"}, seed, None, [(0, 2.3, lr), (100, loss + seed / 100, lr)], {})
        for lr, loss in losses.items() for seed in seeds
    ]  # fmt: skip


def test_sensitivity_takes_runs_that_differ_in_the_rate_alone_as_one_method(tmp_path):
    runs = swept("fixed", "SGD", {1e-3: 2.0, 1e-1: 0.2}) + swept("oho-default", "Default OHO", {1e-3: 0.11, 1e-1: 0.1})
    runs += [("prodigy", {"label": "Prodigy"}, seed, None, [(0, 2.3, 0.1), (100, 0.3, 0.1)], {}) for seed in (0, 1, 2)]
    runs += [("cosine", {"lr": None, "label": "Cosine"}, 0, None, [(0, 2.3, 0.1), (100, 0.01, 0.1)], {})]  # a drawn rate
    runs += [("step", {"lr": 0.1, "label": "Step"}, 0, None, [(0, 2.3, 0.1), (100, 0.01, 0.1)], {})]  # a single one
    estimates = sensitivity.estimate(write_curves(tmp_path, "sensitivity", runs))
    assert estimates.near == {"SGD": (0, 2), "Default OHO": (2, 2), "Prodigy": (0, 1)}
    medians = estimates.summary.set_index(["group", "start"])["median"]
    assert medians["SGD", 0.1] == pytest.approx(0.21)
    first, second = sensitivity.findings(estimates)
    assert "with Default OHO from 2 of 2 and SGD from 0 of 2" in first
    assert "and most with SGD (0.21 to 2.01)" in second
    (legend,) = sensitivity.draw(estimates).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Default OHO, 2 of 2", "Prodigy", "SGD, 0 of 2"]


def test_an_untrained_model_is_never_near_the_best(tmp_path):
    runs = swept("fixed", "SGD", {1e-3: 2.0, 1e-1: 0.2})
    tables = write_curves(tmp_path, "sensitivity", runs)
    tables.runs.loc[tables.runs["label"] == "SGD from 0.1", "selected_step"] = 0
    assert sensitivity.estimate(tables).near == {"SGD": (1, 2)}


@pytest.mark.parametrize("figure", ["sensitivity", "drift", "many", "summary"])
@pytest.mark.parametrize("loss", [0.3, None])
def test_without_its_runs_it_is_a_sentence(figure, loss, tmp_path):
    write_curves(tmp_path, figure, [("fixed", {"lr": 0.1}, 0, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {})])
    with pytest.raises(ReportError, match=f"{figure}: .*not drawn"):
        build_figure(figure, tmp_path, tmp_path / "figure.pdf")


def test_drift_is_the_mean_loss_over_time_in_each_world(tmp_path):
    estimates = drift.estimate(write_drift(tmp_path, drifting()))
    means = estimates.summary.set_index(["world", "label"])["mean"]
    turned, both = "inputs turn 90° in 20 epochs", "inputs turn 90° in 20 epochs and labels shift"
    assert means.to_dict() == pytest.approx({  # of losses at three times, .1 above those of seed 0
        (turned, "Default OHO"): 0.85, (turned, "Fixed"): 1.35, (both, "Default OHO"): 1.05, (both, "Fixed"): 2.1,
    })  # fmt: skip
    assert list(means.index) == [(turned, "Default OHO"), (turned, "Fixed"), (both, "Default OHO"), (both, "Fixed")]
    said = f"Where {both}, the mean loss over time is lowest with Default OHO, 1.05 "
    assert said in drift.findings(estimates)[1]
    assert len(drift.draw(estimates).axes) == 4
    assert drift.published_rows(estimates)[1] == [turned, "Default OHO", "0.85 (0.75, 0.95)", "0.3"]


def test_a_run_that_explodes_or_ends_early_in_a_drift_is_lost(tmp_path):
    runs = [*drifting(), ("adam", None, 0, [2.0, 1e9, 1.0]), ("cosine", None, 0, [2.0, 0.1])]
    summary = drift.estimate(write_drift(tmp_path, runs)).summary.set_index("label")["mean"]
    assert summary[["Adam", "Cosine"]].tolist() == [np.inf, np.inf]


def test_a_still_world_has_no_drift(tmp_path):
    tables = write_drift(tmp_path, [run for run in drifting() if run[1] is None], task={})
    with pytest.raises(NoData, match="whose inputs turn or whose labels shift"):
        drift.estimate(tables)


def test_many_counts_what_is_tuned_and_times_it_to_the_best_search(tmp_path):
    estimates = many.estimate(write_many(tmp_path))
    rows = estimates.summary.set_index(["kind", "values"])
    assert rows["median"].round(3).to_dict() == {
        ("OHO, exact", 2): 0.11, ("OHO, exact", 12): 0.11, ("Random search", 2): 0.21, ("Random search", 12): 0.81,
        ("Tpe-Search", 12): 0.51,
    }  # fmt: skip
    assert estimates.target == (pytest.approx(0.21), "Random search: Fixed, 2 values")
    assert rows["used"].tolist() == [0.5, 0.5, 0.5, np.inf, np.inf]
    assert rows["is_tested"].tolist() == [True, True, True, True, False]
    text = " ".join(many.findings(estimates))
    assert "from 0.11 to 0.11 with OHO, exact (2 to 12) and from 0.21 to 0.81 with Random search (2 to 12)" in text
    assert "that of Random search with 2 values: with 12 values, OHO, exact reaches it after 0.5" in text
    assert "Random search misses it (medians)" in text
    assert "Not tested: Tpe-Search, for want of trials." in text
    many.draw(estimates)


def test_averaged_oho_has_a_line_of_its_own_with_all_its_numbers_of_sets(tmp_path):
    methods = [("oho-averaged", None, 1, 0.1, 0), ("oho-averaged", None, 6, 0.1, 0), ("random-search", "fixed", 1, 0.2, 8)]
    estimates = many.estimate(write_many(tmp_path, methods))
    assert estimates.summary[["kind", "values"]].apply(tuple, axis=1).tolist() == [
        ("Averaged OHO, exact", 2), ("Averaged OHO, exact", 12), ("Random search", 2),
    ]  # fmt: skip
