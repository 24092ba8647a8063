"""Figures that the paper does not have: from records to numbers exactly, to axes lightly."""

import pytest
from made_up_runs import write_curves

from bench.records import ReportError
from reports.api import build_figure
from reports.figures import sensitivity


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
    assert "SGD between 0.21 and 2.01" in second
    assert [text.get_text() for text in sensitivity.draw(estimates).axes[0].texts] == [
        "Default OHO, 2 of 2", "SGD, 0 of 2", "Prodigy, no rate",
    ]  # fmt: skip


def test_an_untrained_model_is_never_near_the_best(tmp_path):
    runs = swept("fixed", "SGD", {1e-3: 2.0, 1e-1: 0.2})
    tables = write_curves(tmp_path, "sensitivity", runs)
    tables.runs.loc[tables.runs["label"] == "SGD from 0.1", "selected_step"] = 0
    assert sensitivity.estimate(tables).near == {"SGD": (1, 2)}


@pytest.mark.parametrize("figure", ["sensitivity"])
@pytest.mark.parametrize("loss", [0.3, None])
def test_without_its_runs_it_is_a_sentence(figure, loss, tmp_path):
    write_curves(tmp_path, figure, [("fixed", {"lr": 0.1}, 0, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {})])
    with pytest.raises(ReportError, match=f"{figure}: .*not drawn"):
        build_figure(figure, tmp_path, tmp_path / "figure.pdf")
