"""Which runs a command trains together, and what becomes of them."""

import os
import signal

import pytest
from faults import command
from helpers import experiment, write_config

from bench.command import batches
from bench.command.batches import batches_of
from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.run_series import launch
from bench.command.supervisor import blame_a_run
from bench.records import Status, read_runs

SHORT = ["budget.steps=12", "evaluations=1", "task.width=8"]


def planned(folder, *methods, overrides=(), seeds=(0, 1, 2)):
    found = experiment(folder, *methods, overrides=[*SHORT, *overrides], seeds=seeds)
    return found, plan([found], folder / "runs")


def sizes(items, **options):
    return [len(batch) for batch in batches_of(items, None, **options).together]


def test_runs_that_differ_in_values_are_trained_together(tmp_path):
    items = planned(tmp_path, "fixed", "cosine", "oho-global", "prodigy")[1]
    found = batches_of(items, None)
    assert [len(batch) for batch in found.together] == [6, 3]
    assert set(found.alone.values()) == {"its method has no batch"}


@pytest.mark.parametrize(("population", "expected"), [("off", []), ("4", [3, 2]), ("auto", [5]), ("2", [2, 2])])
def test_the_file_says_how_many_at_most(population, expected, tmp_path):
    items = planned(tmp_path, "fixed", overrides=[f"population={population}"], seeds=range(5))[1]
    assert sorted(sizes(items)) == sorted(expected)


def test_another_number_is_one_line(tmp_path):
    answer = command("run", write_config(tmp_path, "fixed"), "--population", "1", "--dry-run", "--in-process")
    assert answer.exit_code == 2
    assert answer.stderr.endswith("--population 1: auto, off or a whole number from 2 to 1000 is expected\n")


def test_a_dry_run_says_what_is_trained_together_and_why_the_rest_is_not(tmp_path):
    path = write_config(tmp_path, "fixed", "prodigy")
    answer = command("run", path, "--seeds", "0-1", "--dry-run", "--out", tmp_path / "runs")
    lines = answer.stdout.splitlines()
    assert [line.rsplit(", ", 1)[1] for line in lines[:4]] == ["batch 1", "alone", "batch 1", "alone"]
    assert "trained together, with seconds in common: 1 × 2 runs" in lines
    assert "trained alone: 2 runs: its method has no batch" in lines


def test_runs_that_were_made_together_are_no_other_runs(tmp_path):
    found, items = planned(tmp_path, "fixed", overrides=["population=off"])
    assert launch([found], items[:1], tmp_path / "runs", data_root=None) == {Status.BUDGET_REACHED: 1}
    found, items = planned(tmp_path, "fixed")
    assert [item.is_done for item in items] == [True, False, False]
    assert launch([found], items, tmp_path / "runs", data_root=None) == {Status.BUDGET_REACHED: 2}
    assert [run.outcome.shared_by for run in read_runs(tmp_path / "runs")].count(2) == 2


def test_a_batch_that_fails_is_made_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "run_together", lambda specs, *arguments, **options: [None] * len(specs))
    found, items = planned(tmp_path, "fixed")
    assert launch([found], items, tmp_path / "runs", data_root=None) == {Status.BUDGET_REACHED: 3}


def test_the_runs_of_a_batch_whose_process_died_are_made_alone(tmp_path, capfd):
    items = planned(tmp_path, "fixed")[1]
    journal = Journal.new()
    child = os.fork()
    if child == 0:
        with journal.within_batch([item.id for item in items[:2]]):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert blame_a_run(journal, signal.SIGKILL, tmp_path)
    assert "the 2 runs that were made together are now made alone" in capfd.readouterr().err
    assert not journal.batch
    assert not journal.unsettled
    found = batches_of(items, None, apart=journal.apart)
    assert sorted(found.alone.values()) == sorted([batches.ALONE, *["the process of its batch died"] * 2])
