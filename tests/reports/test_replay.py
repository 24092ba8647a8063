"""Smaller budgets, read off the records of a larger one."""

import numpy as np
import pytest
from made_up_runs import LOSSES, evaluation, incumbent, spec_of, write_folder, write_run

from bench.records import Manifest, RecordError, ReportError, Status, write_manifest
from reports.replay import at_budgets, describe


def test_the_last_model_found_within_the_budget_is_the_result(tmp_path):
    write_folder(tmp_path, LOSSES)  # models are found after 1 and 2, in searches also 3 counted seconds
    table = at_budgets(tmp_path, 2.0, period=0.5)
    fixed = table[table["label"] == "Fixed"].pivot(index="replayed", columns="seed", values="test_loss")
    assert fixed.loc[1.0].tolist() == fixed.loc[1.5].tolist() == [0.9, 0.8, 0.7]
    assert fixed.loc[2.0].tolist() == [0.5, 0.3, 0.4]
    assert fixed.loc[0.5].isna().all()
    search = table[(table["label"] == "Random search: Fixed") & (table["replayed"] == 2.0)]
    assert search["trial"].tolist() == [1, 1, 1]


def test_a_schedule_that_spans_the_budget_is_known_at_its_own_budget_only(tmp_path):
    write_folder(tmp_path, LOSSES, spans_budget=True)
    assert at_budgets(tmp_path, 1.5)["test_loss"].isna().all()
    assert at_budgets(tmp_path, 2.0)["test_loss"].notna().all()
    text = describe(at_budgets(tmp_path, 2.0, period=1.0))
    assert "unknown: no model with a finite loss, or a schedule that spans the budget" in text


def test_the_description_has_medians_and_says_of_what(tmp_path):
    write_folder(tmp_path, LOSSES)
    text = describe(at_budgets(tmp_path, 2.0))
    assert "counted seconds" in text
    (line,) = (line for line in text.splitlines() if line.startswith("Fixed"))
    assert "0.4000 (0.3000, 0.5000) n=3" in line


def test_a_run_whose_clock_was_disturbed_is_named_beside_its_seconds(tmp_path):
    write_folder(tmp_path, {("fixed", None): LOSSES["fixed", None]}, invalid_because=["it slept"])
    table = at_budgets(tmp_path, 2.0, period=1.0)
    assert set(table["invalid_because"]) == {"it slept"}
    assert "in 3 of 3 runs the clock was disturbed: they are not valid" in describe(table)


WRONG = [
    (3, None, "largest budget .* is 2 seconds"), (0, None, "above 0"), (1, 1e-9, "--period 1e-09: from a 1000th"),
    (1, 2, "--period 2: from a 1000th of the budget up to it"),
]  # fmt: skip


@pytest.mark.parametrize(("budget", "period", "words"), WRONG)
def test_a_budget_that_was_not_run_is_refused(budget, period, words, tmp_path):
    write_folder(tmp_path, LOSSES)
    with pytest.raises(ReportError, match=words):
        at_budgets(tmp_path, budget, period)


def test_a_folder_of_results_folders_names_them(tmp_path):
    write_folder(tmp_path / "first", LOSSES)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "records.tar.xz").touch()
    (tmp_path / "other").mkdir()
    with pytest.raises(RecordError, match=r"into this folder; give one of those in it: first, second$"):
        at_budgets(tmp_path, 1.0)


def test_nothing_measured_is_said(tmp_path):
    with pytest.raises(RecordError, match="no experiment has been run into this folder"):
        at_budgets(tmp_path, 1.0)
    (identity,) = write_folder(tmp_path, {("fixed", None): [[0.5]]}, status=Status.INTERRUPTED)
    with pytest.raises(RecordError, match="this is the folder of one run; give the results folder that holds it"):
        at_budgets(tmp_path / identity, 1.0)
    with pytest.raises(ReportError, match="no run has been measured"):
        at_budgets(tmp_path, 1.0)


def test_one_experiment_of_a_folder_is_replayed_alone(tmp_path):
    ids = write_folder(tmp_path, LOSSES)
    spec = {**spec_of("fixed", 9), "budget": {"unit": "epochs", "amount": 5}}
    other = write_run(tmp_path, spec, [incumbent(50, 0.5), evaluation(50, 0.5)])
    write_manifest(tmp_path, Manifest("longer", (), {}, (other,)))
    with pytest.raises(ReportError, match=r"epochs and in seconds, where .* choose with --experiment: .*, longer$"):
        at_budgets(tmp_path, 2.0)
    (of_them,) = set(at_budgets(tmp_path, 5, experiment="longer")["experiment"])
    assert of_them == "longer"
    with pytest.raises(ReportError, match=r"--experiment longr: has no measured run in .*; allowed: .*, longer$"):
        at_budgets(tmp_path, 2.0, experiment="longr")
    assert len(ids) > 1


def test_runs_of_smaller_budgets_are_left_out(tmp_path):
    ids = write_folder(tmp_path, LOSSES)
    small = {**spec_of("fixed", 9), "budget": {"unit": "seconds", "amount": 1.0}}
    other = write_run(tmp_path, small, [incumbent(50, 0.5), evaluation(50, 0.5)])
    write_manifest(tmp_path, Manifest("both", (), {}, (*ids, other)))
    assert len(at_budgets(tmp_path, 1.0)) == len(ids) + 1
    assert len(at_budgets(tmp_path, 2.0)) == len(ids)


def test_multiples_of_a_period_are_what_they_are_called(tmp_path):
    write_folder(tmp_path, LOSSES)
    assert np.unique(at_budgets(tmp_path, 0.3, period=0.1)["replayed"]).tolist() == [0.1, 0.2, 0.3]
    assert np.unique(at_budgets(tmp_path, 1.0, period=0.4)["replayed"]).tolist() == [0.4, 0.8, 1.0]


def test_untrained_models_are_said_in_the_place_of_their_loss(tmp_path):
    ids = [
        write_run(tmp_path, spec_of("fixed", seed), [incumbent(0, 2.3), incumbent(100, 0.5), evaluation(100, 0.5)])
        for seed in range(2)
    ]
    write_manifest(tmp_path, Manifest("late", (), {}, tuple(ids)))
    table = at_budgets(tmp_path, 2.0, period=0.5)
    assert set(table["selected_step"]) == {0, 100}
    text = describe(table)
    assert "2.3" not in text
    assert "0.5000" in text
    assert "untrained: most of the method's runs had selected no trained model by then" in text
