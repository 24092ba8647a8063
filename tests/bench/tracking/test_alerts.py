"""Alerts of W&B runs, with the real wandb: against a small server, and offline."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import wandb
from made_up_runs import evaluation, spec_of, write_run
from wandb_artifacts import ArtifactServer
from wandb_server import KEY

from bench.records import Status, read_run
from bench.tracking.wandb_content import alert_of
from bench.tracking.wandb_runs import WandbRun
from bench.tracking.wandb_sink import open_sink, unreachable

MESSAGE = 'Traceback:\n  File "x.py"\nValueError: no /home/someone/data'


@pytest.fixture
def diverged(tmp_path):
    identity = write_run(tmp_path, spec_of("fixed", 0), [evaluation(0, 1.0)], status=Status.DIVERGED)
    return read_run(tmp_path / identity)


def ended(run, mode):
    """What becomes of a run's sink that is opened and closed."""
    sink = open_sink(run.id, run.spec, run.folder, mode=mode, project="test", experiment="small")
    sink.record(run.records[0])
    sink.close(run.outcome)
    return sink


@pytest.fixture
def online(tmp_path):
    server = ArtifactServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", server.address)
        patch.setenv("HOME", str(tmp_path / "home"))
        wandb.teardown()
        yield server
        wandb.teardown()
    unreachable.clear()
    server.listener.shutdown()


def test_a_run_that_diverges_online_is_told_of_once(diverged, online):
    assert not ended(diverged, "online").failed
    (alert,) = online.alerts
    assert (alert["title"], alert["severity"], alert["projectName"]) == ("diverged: Fixed, seed 0", "WARN", "test")
    assert alert["text"] == "Fixed, seed 0, of experiment small, diverged after 2.0 counted seconds."


def test_offline_there_is_none(diverged, monkeypatch):
    asked = []
    monkeypatch.setattr(wandb.Run, "alert", lambda run, *arguments, **options: asked.append(arguments))
    assert not ended(diverged, "offline").failed
    assert asked == []


def test_one_that_is_refused_changes_nothing():
    def refuse(*arguments, **options):
        raise ValueError("no alerts")

    WandbRun(SimpleNamespace(offline=False, alert=refuse)).alert("a title", "a text")


def test_only_failures_are_worth_an_alert_and_name_no_folder(diverged):
    alert = partial(alert_of, name="Fixed, seed 0", experiment="small")
    failed = dataclasses.replace(diverged.outcome, status=Status.FAILED, message=MESSAGE)
    _, text = alert(failed)
    assert text.endswith("failed after 2.0 counted seconds: ValueError: no data")
    for status in (Status.BUDGET_REACHED, Status.INTERRUPTED):
        assert alert(dataclasses.replace(diverged.outcome, status=status)) is None
