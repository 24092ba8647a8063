"""Losses and metrics have the task's names and units, and a model that was never trained wins nothing."""

import pytest
from made_up_runs import LOSSES, evaluation, incumbent, spec_of, write_folder, write_oho, write_run

from bench.records import Manifest, write_manifest
from reports.api import build_report
from reports.document import content_of
from reports.figures import anytime, distribution, performance, reset
from reports.run_rows import columns, details, losses, rows
from reports.selection import NoData
from reports.tables import read_tables

METRES = {"loss": "squared error", "loss_unit": "m²", "metric": "absolute error", "metric_unit": "m"}


def write_two_tasks(root):
    """One run of a task in nats, one of a task in metres."""
    ids = []
    for seed, units in enumerate((None, METRES)):
        spec = spec_of("oho-global", seed, task="digits-mlp" if units is None else "depth")
        spec["task"] |= {"units": units} if units else {}
        spec["method"] |= {"reset_every": seed}
        ids.append(write_run(root, spec, [incumbent(100, 0.5), evaluation(100, 0.5)]))
    write_manifest(root, Manifest("two", ("reset", "distribution"), {}, tuple(ids)))
    return read_tables(root)


def test_axes_and_tables_have_the_tasks_units(tmp_path):
    spec = spec_of("oho-global", 0, task="depth")
    spec["task"]["units"] = METRES
    other = {**spec_of("fixed", 0, task="depth"), "task": spec["task"]}
    ids = [write_run(tmp_path, one, [incumbent(100, 0.5), evaluation(100, 0.5)]) for one in (spec, other)]
    write_manifest(tmp_path, Manifest("depth", ("distribution", "anytime"), {}, tuple(ids)))
    tables = read_tables(tmp_path)
    assert distribution.draw(distribution.estimate(tables)).axes[0].get_xlabel() == "Final test loss\n(m²)"
    chart = anytime.interactive(anytime.estimate(tables))
    assert chart.layout.yaxis.title.text == "Test loss of the selected model (m²)"
    (table,) = content_of(tables, [])["results"]
    assert (table["header"][5], table["rows"][0][5]) == ("Absolute error", "0.1")
    assert table["losses"] == "Losses are squared error in m², errors in m."
    assert next(column["title"] for column in columns(tables.runs) if column["kind"] == "measure") == "Test loss"
    assert "Test absolute error (m)" in {column["title"] for column in columns(tables.runs)}
    assert details(tables)[ids[0]]["log"]["test absolute error (m)"] == [0.1]


def test_a_fraction_is_shown_in_per_cent(tmp_path):
    write_folder(tmp_path, LOSSES)
    (table,) = content_of(read_tables(tmp_path), [])["results"]
    assert (table["header"][5], table["rows"][0][5]) == ("Classification error (%)", "10.00")


def test_different_units_share_no_axis(tmp_path):
    tables = write_two_tasks(tmp_path)
    with pytest.raises(NoData, match=r"measure different things \(.*squared error in m², .*\), which share no axis"):
        reset.estimate(tables)
    table = rows(tables.runs)
    assert [(row[6], row[8]) for row in table] == [(0.5, 10.0), (0.5, 0.1)]
    depth, digits = "on depth squared error in m², absolute error (m)", "on digits-mlp cross-entropy in nats per example, "
    assert losses(tables.runs) == f"Losses and metrics ({digits}classification error (%); {depth})"
    assert build_report(tmp_path, tmp_path / "report.pdf")


def selected_at(root, steps):
    """Runs by method; each selects its model at a step, with a loss that is the lower the earlier it was."""
    ids = []
    for name, found in steps.items():
        for seed, step in enumerate(found):
            last = evaluation(100, 0.5) | {"incumbent_test_loss": 0.1 if step == 0 else 0.4}
            records = [incumbent(step, last["incumbent_test_loss"]), last]
            ids.append(write_run(root, spec_of(name, seed), records, final={**last, "selected_step": step}))
    write_manifest(root, Manifest("both", ("distribution", "anytime", "performance"), {}, tuple(ids)))
    return read_tables(root)


def test_the_untrained_model_wins_nothing(tmp_path):
    tables = selected_at(tmp_path, {"fixed": 3 * [0, 0, 50], "adam": 3 * [50, 50, 0], "oho-global": 3 * [50, 60, 70]})
    text = " ".join(distribution.findings(distribution.estimate(tables)))
    assert "Global OHO ends at a median test loss of 0.4" in text
    assert "no less than Adam" in text
    assert "With Fixed more than half of the runs return the untrained model." in text
    text = " ".join(anytime.findings(anytime.estimate(tables)))
    assert "At 2 counted seconds Adam is lowest with 0.4, level with Global OHO." in text
    assert "At 0.2 counted seconds no method had selected a trained model." in text
    content = content_of(tables, [])
    assert content["comparisons"][0]["reference"] == "Global OHO"
    assert "Fixed from" not in content["comparisons"][0]["power"]
    assert content["results"][0]["untrained"] == "Runs that return the untrained model: Fixed (6 of 9) and Adam (3 of 9)."
    assert rows(tables.runs)[0][4] == "budget reached (untrained model)"


def test_where_nothing_was_trained_the_report_says_so(tmp_path):
    tables = selected_at(tmp_path / "runs", {"fixed": [0, 0], "oho-global": [0, 0]})
    for figure in (distribution, anytime):
        assert figure.findings(figure.estimate(tables)) == ["No method selected a trained model within the budget."]
    with pytest.raises(NoData, match="Most Global OHO runs return the untrained model"):
        performance.estimate(tables)
    assert content_of(tables, [])["comparisons"][0]["power"] == "No method selected a trained model within the budget."
    build_report(tmp_path / "runs", tmp_path / "report.pdf")


def test_older_results_say_by_their_records_when_the_model_was_found(tmp_path):
    write_oho(tmp_path / "a", "reset", [("oho-global", {}, 0, [(0, 2.3, [0.1], ()), (100, 0.2, [0.1], ())])])
    assert read_tables(tmp_path / "a").runs["selected_step"].isna().all()
    write_folder(tmp_path / "b", {("fixed", None): [[0.5, 0.4]]})
    assert read_tables(tmp_path / "b").runs["selected_step"].tolist() == [200]
