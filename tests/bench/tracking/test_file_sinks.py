"""TensorBoard and trackio as sinks, read back by their own readers."""

import json
import socket
from functools import partial
from types import SimpleNamespace

import pytest
from faults import timeless, told
from helpers import StoppedAfter, experiment, run_one
from made_up_runs import evaluation, spec_of

from bench.experiment.schema import Tracking
from bench.process.signals import Interrupted
from bench.records import Status, read_run, run_id
from bench.run.runner import run
from bench.tracking import file_sink
from bench.tracking.sinks import open_sinks
from bench.tracking.tensorboard_sink import EventFile


@pytest.fixture(scope="module")
def events():
    """Returns all events of TensorBoard's files below a folder."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    def read(folder):
        return [event for path in sorted(folder.rglob("*tfevents*")) for event in LegacyEventFileLoader(str(path)).Load()]

    return read


@pytest.fixture
def trackio_in(monkeypatch):
    """Moves trackio's storage, which a process has in one folder alone, and returns it."""
    pytest.importorskip("trackio", reason="trackio is an extra of its own: pip install 'oho-bench[trackio]'")
    from trackio import sqlite_storage, utils

    def move(folder):
        for module in (utils, sqlite_storage):
            monkeypatch.setattr(module, "TRACKIO_DIR", folder)
        return sqlite_storage.SQLiteStorage

    monkeypatch.setenv("TRACKIO_DIR", "")
    return move


def tracked(spec, folder, *sinks, stopper=None):
    sink = partial(open_sinks, experiment="small", tracking=Tracking(sinks=sinks, project="test"))
    return run(spec, folder, data_root=None, open_sink=sink, stopper=stopper)


def stopped_and_continued(spec, folder, *sinks):
    with pytest.raises(Interrupted):
        tracked(spec, folder, *sinks, stopper=StoppedAfter(4))
    assert tracked(spec, folder, *sinks).status is Status.BUDGET_REACHED
    return read_run(folder / run_id(spec))


def points(events, tag):
    """A scalar's steps, values and times."""
    found = [(event, value) for event in events for value in event.summary.value if value.tag == tag]
    return [(event.step, value.simple_value, event.wall_time) for event, value in found]


def test_tensorboard_has_each_step_once_after_a_run_was_continued(events, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "a-telling-host")
    spec = experiment(tmp_path, "oho-global").specs[0]
    held = stopped_and_continued(spec, tmp_path / "runs", "tensorboard").evaluations
    (path,) = (tmp_path / "runs").rglob("*tfevents*")
    assert "a-telling-host" not in path.name
    assert path.relative_to(tmp_path / "runs").parts[:3] == ("tensorboard", "small", f"Global OHO, seed 0, {run_id(spec)}")
    found = events(tmp_path)
    losses = points(found, "last/validation_loss")
    assert [step for step, _, _ in losses] == [each["step"] for each in held]
    assert [value for _, value, _ in losses] == pytest.approx([each["validation_loss"] for each in held])
    began = losses[0][2] - held[0]["counted_seconds"]
    assert [time - began for _, _, time in losses] == pytest.approx([each["counted_seconds"] for each in held], abs=1e-5)
    assert [value for _, value, _ in points(found, "epoch")][-1] == pytest.approx(held[-1]["epoch"])
    assert [value for _, value, _ in points(found, "hyper/lr")] == pytest.approx([each["hyper"]["lr"][0] for each in held])
    tags = {value.tag for event in found for value in event.summary.value}
    assert {"_hparams_/session_start_info", "_hparams_/session_end_info", "spec/text_summary"} <= tags


def test_a_search_and_histograms_in_tensorboard(events, tmp_path):
    sink = open_sinks("0" * 16, spec_of("random-search", 0, "fixed"), tmp_path / "runs" / ("0" * 16), experiment="small",
                      tracking=Tracking(sinks=("tensorboard",)))  # fmt: skip
    record = evaluation(0, 2.0)
    trial = {**record, "kind": "trial", "hyper": {"lr": 0.25}, "status": "ended", "steps": 5}
    for each in (record, {**record, "step": 5, "hyper": {"lr": [0.1 * k for k in range(1, 10)]}}, {**trial, "step": 5}):
        sink.record(each)
    found = events(tmp_path)
    assert points(found, "objective")[0][:2] == (5, 2.0)
    assert points(found, "trial/lr")[0][:2] == (5, 0.25)
    (histogram,) = [value.histo for event in found for value in event.summary.value if value.tag == "hyper/lr/sets"]
    assert sum(histogram.bucket) == 9
    assert (histogram.min, histogram.max) == pytest.approx((0.1, 0.9))


def test_trackio_has_each_step_once_without_a_network(trackio_in, tmp_path, socket_disabled):
    storage = trackio_in(tmp_path / "runs" / "trackio")
    spec = experiment(tmp_path, "oho-global").specs[0]
    held = stopped_and_continued(spec, tmp_path / "runs", "trackio")
    (record,) = storage.get_run_records("test")
    assert (record["id"], record["name"]) == (run_id(spec), f"Global OHO, seed 0, {run_id(spec)}")
    rows = storage.get_logs("test", record["name"], run_id=record["id"])
    losses = [(row["step"], row["last/validation_loss"]) for row in rows if "last/validation_loss" in row]
    assert losses == [(each["step"], each["validation_loss"]) for each in held.evaluations]
    assert len(rows) == len(held.records)
    config = storage.get_run_config("test", record["name"], run_id=record["id"])
    assert (config["method"], config["_Group"]) == ("oho-global", "small, digits-mlp, Global OHO")
    assert (config["status"], config["seconds/train"]) == ("budget_reached", held.outcome.accounts["train"])


@pytest.mark.parametrize(("name", "package"), [("trackio", "trackio"), ("TensorBoard", "tensorboard")])
def test_a_tracker_that_is_not_installed_costs_one_line(name, package, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(file_sink, "find_spec", lambda asked: None)
    monkeypatch.setattr(file_sink, "missing", set())
    spec = spec_of("fixed", 0)
    for identity in ("0" * 16, "1" * 16):
        sink = open_sinks(identity, spec, tmp_path / identity, experiment="small", tracking=Tracking(sinks=(package,)))
        sink.record(evaluation(0, 2.0))
        sink.close(SimpleNamespace())
    (line,) = told(caplog)
    assert line == (
        f"{name} does not track these runs: {package} is not installed (pip install 'oho-bench[{package}]'); their records"
        " are complete"
    )
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_fails_costs_one_line_and_no_counted_time(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError("no room")

    monkeypatch.setattr(file_sink, "find_spec", lambda asked: True)
    monkeypatch.setattr(EventFile, "begin", lambda *arguments: None)
    monkeypatch.setattr(EventFile, "configure", lambda *arguments: None)
    monkeypatch.setattr(EventFile, "log", refuse)
    spec = experiment(tmp_path, "fixed").specs[0]
    outcome = tracked(spec, tmp_path / "runs", "tensorboard")
    run_one(spec, tmp_path / "whole")
    assert outcome.status is Status.BUDGET_REACHED
    (line,) = told(caplog)
    assert line == f"run {run_id(spec)} is no longer tracked by TensorBoard (OSError: no room); its records are complete"
    assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "whole" / run_id(spec))
    assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds)


def test_no_sinks_are_no_tracking(tmp_path):
    spec = experiment(tmp_path, "fixed").specs[0]
    tracked(spec, tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run_id(spec)]
    assert json.loads((tmp_path / "runs" / run_id(spec) / "outcome.json").read_text())["status"] == "budget_reached"
