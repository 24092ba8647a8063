"""Recovery from shocks: what one run needs to be back, what noise may hide, and the figure that tells."""

import numpy as np
import pytest
from made_up_runs import shocked_runs, write_curves

from reports.figures import resiliency
from reports.recovery import band, recovery

RECOVERIES = {
    "never outside": ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], (0.0, 0.0)),
    "within five percent": ([1.05, 1.04, 1, 1, 1], [1, 1, 1, 1, 1], (0.0, 0.065)),
    "back after two epochs": ([1, 3, 1, 1, 1], [1, 1, 1, 1, 1], (2.0, 2.0)),
    "touches the band and leaves it": ([3, 2, 1, 9, 9], [1, 1, 1, 1, 1], (np.inf, 14.0)),
    "back twice": ([3, 1, 2, 1, 1, 1], [1, 1, 1, 1, 1, 1], (3.0, 2.0)),
    "back too late to tell": ([1, 3, 3, 1, 1], [1, 1, 1, 1, 1], (np.inf, 4.0)),
    "never back": ([1, 2, 2, 2, 2], [1, 1, 1, 1, 1], (np.inf, 3.5)),
    "better than the twin": ([1, 0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1, 1], (0.0, 0.0)),
    "diverged": ([1, np.nan, np.nan, np.nan, np.nan], [1, 1, 1, 1, 1], (np.inf, np.inf)),
    "both diverged": ([np.nan] * 5, [np.nan] * 5, (np.inf, 0.0)),
    "both diverged before the shock": ([], [], (np.inf, 0.0)),
}


@pytest.mark.parametrize("case", RECOVERIES)
def test_resiliency_of_one_run(case):
    losses, twin, expected = RECOVERIES[case]
    width = band([np.array([twin], dtype=float)])  # one seed tells nothing of noise
    found = recovery(
        np.array(losses, dtype=float), np.array(twin, dtype=float), epochs=3.0 + np.arange(len(losses)), shock=3.0,
        width=width,
    )  # fmt: skip
    assert tuple(found) == pytest.approx(expected)


def test_the_band_is_as_wide_as_unshocked_runs_are_apart():
    alike, apart, lost = [1, 1, 1], [1, 1.2, 3], [np.nan, np.nan, np.nan]
    assert band([np.array([alike, apart])]).tolist() == pytest.approx([0.05, 0.2, 2.0])
    assert band([np.array([alike, alike])]).tolist() == [0.05] * 3
    quiet, wild = np.array([alike, [1, 1.1, 1.1]]), np.array([alike, lost])
    assert band([quiet, wild]).tolist() == pytest.approx([0.05, 0.1, 0.1])  # one method's lost runs open no door
    assert band([wild]).tolist() == [np.inf] * 3


def test_of_ten_pairs_the_one_furthest_apart_does_not_count():
    five = np.array([[1.0], [1.0], [1.0], [1.1], [1.3]])  # pairs: 3 of 0, 3 of .1, one of .18, 3 of .3
    assert band([five]).tolist() == pytest.approx([0.3])
    assert band([np.concatenate([np.ones((24, 1)), [[9.0]]])]).tolist() == [0.05]


NOISY = {
    "noise inside the band": ([1.0, 1.15, 0.9, 1.18, 1.1], 0.0),
    "back within the noise": ([3.0, 2.0, 1.15, 0.9, 1.18], 2.0),
    "touches the band once and leaves": ([3.0, 1.1, 2.0, 1.5, 1.3], np.inf),
    "beyond the noise at the end": ([1.0, 1.1, 1.1, 1.1, 1.25], np.inf),
}


@pytest.mark.parametrize("case", NOISY)
def test_noise_takes_no_run_out_of_the_band(case):
    losses, expected = NOISY[case]
    twin, epochs = np.ones(5), np.arange(5.0)
    width = band([np.array([[1.0] * 5, [1.2] * 5])])
    assert recovery(np.array(losses), twin, epochs=epochs, shock=0.0, width=width).epochs == expected


def noisy_runs():
    """Unshocked runs of two seeds 20 % apart; shocked ones that stay 15 % above their twins."""
    event = {"epoch": 3.0, "set": {"lr": 0.2}}
    return [
        (name, {}, seed, shock, [(step, (1 + seed / 5) * (1.15 if shock and step > 30 else 1), 0.1)
                                 for step in range(0, 100, 10)], {})
        for name in ("fixed", "oho-global") for seed in (0, 1) for shock in (None, event)
    ]  # fmt: skip


def test_what_noise_hides_is_not_called_a_loss(tmp_path):
    estimates = resiliency.estimate(write_curves(tmp_path, "resiliency", noisy_runs()))
    assert estimates.widths["width"].tolist() == pytest.approx([0.2] * 7)
    assert estimates.summary["recovered"].tolist() == [2, 2]
    assert estimates.summary["epochs"].tolist() == [0.0, 0.0]
    assert "has recovered beside that of another seed in 100 % of pairs of fixed" in resiliency.findings(estimates)[1]


def test_resiliency_estimates(tmp_path):
    estimates = resiliency.estimate(write_curves(tmp_path, "resiliency", shocked_runs()))
    summary = estimates.summary.set_index("label")
    assert summary.loc["fixed", ["n", "epochs", "recovered", "excess"]].tolist() == [3, np.inf, 0, 11.0]
    assert summary.loc["oho-global", ["n", "epochs", "recovered", "excess"]].tolist() == [3, 2.0, 3, 2.0]
    text = " ".join(resiliency.findings(estimates))
    assert "recovers: that of fixed from none; that of oho-global from 1, the slowest after 2 epochs." in text
    assert "lowest with oho-global after 1 of 1 shock" in text
    ratios = {label: curve["median"].tolist() for label, curve in estimates.curves.groupby("method_label")}
    assert ratios == {"fixed": [1.0, *[3.0] * 6], "oho-global": [1.0, 3.0, *[1.0] * 5]}
    (axes,) = resiliency.draw(estimates).axes
    assert [text.get_text() for text in axes.texts] == ["0/3", "3/3", "back"]
    assert len(resiliency.interactive(estimates).data) == 2


def test_a_shocked_run_has_a_name_of_its_own(tmp_path):
    runs = write_curves(tmp_path, "resiliency", shocked_runs()).runs
    assert set(runs["label"]) == {
        "fixed", "oho-global", "fixed; lr set to 0.2 at epoch 3", "oho-global; lr set to 0.2 at epoch 3",
    }  # fmt: skip
    assert set(runs["method_label"]) == {"fixed", "oho-global"}


def test_a_run_that_diverged_after_the_shock_has_not_recovered(tmp_path):
    event = {"epoch": 3.0, "set": {"lr": 9.0}}
    whole = [(step, 1.0, 0.1) for step in range(0, 100, 10)]
    runs = [("fixed", {}, 0, None, whole, {}), ("fixed", {}, 0, event, whole[:5], {})]
    found = resiliency.estimate(write_curves(tmp_path, "resiliency", runs)).runs.iloc[0]
    assert np.isinf(found["epochs"])
    assert np.isinf(found["excess"])
