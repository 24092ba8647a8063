"""Smaller budgets, read off the records of a larger one."""

import numpy as np
import pytest
from test_reports import LOSSES, write_folder

from reports.errors import ReportError
from reports.replay import at_budgets, describe


def test_the_last_model_found_within_the_budget_is_the_result(tmp_path):
    write_folder(tmp_path, LOSSES)  # models are found after 1 and 2, in searches also 3 counted seconds
    table = at_budgets(tmp_path, 2.0, period=0.5)
    fixed = table[table["label"] == "Fixed"].pivot(index="replayed", columns="seed", values="test_loss")
    assert fixed.loc[1.0].tolist() == fixed.loc[1.5].tolist() == [0.9, 0.8, 0.7]
    assert fixed.loc[2.0].tolist() == [0.5, 0.3, 0.4]
    assert fixed.loc[0.5].isna().all()
    search = table[(table["label"] == "random-search: fixed") & (table["replayed"] == 2.0)]
    assert search["trial"].tolist() == [1, 1, 1]


def test_a_schedule_that_spans_the_budget_is_known_at_its_own_budget_only(tmp_path):
    write_folder(tmp_path, LOSSES, spans_budget=True)
    assert at_budgets(tmp_path, 1.5)["test_loss"].isna().all()
    assert at_budgets(tmp_path, 2.0)["test_loss"].notna().all()
    text = describe(at_budgets(tmp_path, 2.0, period=1.0))
    assert "unknown: its schedule spans the budget" in text


def test_the_description_has_medians_and_says_of_what(tmp_path):
    write_folder(tmp_path, LOSSES)
    text = describe(at_budgets(tmp_path, 2.0))
    assert "counted seconds" in text
    (line,) = (line for line in text.splitlines() if line.startswith("Fixed"))
    assert "0.4000 [0.3000, 0.5000] n=3" in line


@pytest.mark.parametrize(("budget", "period", "words"), [(3, None, "largest budget .* is 2"), (0, None, "above 0"),
                                                         (1, 2, "--period 2: above 0 and at most")])  # fmt: skip
def test_a_budget_that_was_not_run_is_refused(budget, period, words, tmp_path):
    write_folder(tmp_path, LOSSES)
    with pytest.raises(ReportError, match=words):
        at_budgets(tmp_path, budget, period)


def test_nothing_measured_is_said(tmp_path):
    with pytest.raises(ReportError, match="no run has been measured"):
        at_budgets(tmp_path, 1.0)


def test_runs_of_smaller_budgets_are_left_out(tmp_path):
    write_folder(tmp_path, LOSSES)
    assert np.unique(at_budgets(tmp_path, 2.0)["budget"]).tolist() == [2.0]
