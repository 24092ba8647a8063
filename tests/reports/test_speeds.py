"""Runs of a shared machine have unlike speeds: reports say how unlike, and which methods that favours."""

import pytest
from made_up_runs import ENVIRONMENT, evaluation, incumbent, spec_of, write_run

from bench.records import Manifest, write_manifest
from reports.api import build_report
from reports.document import content_of
from reports.speeds import HOW, favoured, relative, speeds, unequal_speeds
from reports.tables import read_tables

NODE = {**ENVIRONMENT, "node": "cccc3333", "device_name": "AMD EPYC, 2 logical cores"}
FAIR = {"oho-global": [0.010] * 3, "fixed": [0.010] * 3, "cosine": [0.0105, 0.0095, 0.010]}
UNFAIR = {
    "oho-global": [0.012, 0.0125, 0.013], "fixed": [0.010] * 3, "cosine": [0.0101] * 3, "adam": [0.008, 0.009, 0.007],
}  # fmt: skip


def write(root, calibrations, *, unit="seconds", plain_steps=None):
    """A folder with a run for each of a method's calibrations; `plain_steps` are the seconds of a plain step by method."""
    ids = []
    for name, found in calibrations.items():
        for seed, seconds in enumerate(found):
            spec = spec_of(name, seed)
            spec["budget"] = {"unit": unit, "amount": 2.0}
            records = [incumbent(0, 0.9), evaluation(0, 0.9), incumbent(100, 0.2), evaluation(100, 0.2)]
            ids.append(write_run(
                root, spec, records, environment=NODE | {"node": f"of {name}"} if plain_steps else NODE,
                conditions={"probe_seconds": [3 * seconds, seconds]},
                plain_step={"seconds": plain_steps[name]} if plain_steps else None,
            ))  # fmt: skip
    write_manifest(root, Manifest("timed", ("distribution",), {}, tuple(ids)))
    return root


def test_methods_with_another_machine_than_the_median_run_are_named(tmp_path):
    runs = read_tables(write(tmp_path, UNFAIR)).runs
    assert favoured(runs) == [
        "Runs of Adam had a machine 26 % faster than the median run's: their losses are too low.",
        "Runs of Global OHO had a machine 20 % slower than the median run's: their losses are too high.",
    ]
    assert unequal_speeds(runs) == (
        f"A budget of time buys more steps where the machine is faster: {HOW}, it was 23 % slower to 44 % faster than in "
        "the median run of an experiment, and within 6 % in half of the runs."
    )


@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_budgets_of_steps_are_equal_on_any_machine(tmp_path, unit):
    runs = read_tables(write(tmp_path, UNFAIR, unit=unit)).runs
    assert (favoured(runs), unequal_speeds(runs), speeds(runs).notna().any()) == ([], "", False)


def test_small_differences_are_reported_without_a_warning(tmp_path):
    runs = read_tables(write(tmp_path, FAIR)).runs
    assert favoured(runs) == []
    assert "it was 5 % slower to 5 % faster" in unequal_speeds(runs)


def test_a_slower_node_is_no_disadvantage_under_a_budget_of_plain_steps(tmp_path):
    """Its steps took longer when they were measured, too; what counts is what has changed since."""
    slow, quick = {"oho-global": [0.020] * 3}, {"fixed": [0.010] * 3}
    plain = {"oho-global": 0.002, "fixed": 0.001}
    assert favoured(read_tables(write(tmp_path / "nodes", slow | quick, unit="plain_steps", plain_steps=plain)).runs) == []
    changed = {"oho-global": [0.02, 0.02, 0.03], "fixed": [0.01] * 3}
    runs = read_tables(write(tmp_path / "changed", changed, unit="plain_steps", plain_steps=plain)).runs
    assert speeds(runs).tolist() == pytest.approx([1, 1, 2 / 3, 1, 1, 1])


def test_runs_without_a_calibration_are_not_judged(tmp_path):
    runs = read_tables(write(tmp_path, {"oho-global": [-1.0] * 3, "fixed": [-1.0] * 3})).runs
    assert (favoured(runs), unequal_speeds(runs), relative(runs.assign(speed=speeds(runs)))) == ([], "", "—")


def test_figure_and_report_say_so(tmp_path, monkeypatch):
    root, stamps = write(tmp_path / "runs", UNFAIR), []
    monkeypatch.setattr("reports.api.add_to_stamp", lambda figure, text: stamps.append(text))
    build_report(root, tmp_path / "report.pdf")
    assert stamps == ["the machine's speed was unequal"]
    text = (tmp_path / "report.txt").read_text()
    assert "it was 23 % slower to 44 % faster than in the median run" in text
    assert "Runs of Global OHO had a machine 20 % slower than the median run's" in text
    assert "Runs of Global OHO had a machine 20 % slower" in (tmp_path / "report.html").read_text()
    (group,) = content_of(read_tables(root), [])["results"]
    column = group["header"].index("Machine")
    assert {row[0]: row[column] for row in group["rows"]} == {
        "Global OHO": "−20 %", "Fixed": "0 %", "Cosine": "0 %", "Adam": "+26 %",
    }  # fmt: skip
