"""Trackers that fail, and what they and the records must not tell: docs/reliability.md, word for word."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import wandb
from faults import Hoard, outcome_of, timeless, told
from helpers import ROOT, experiment, run_one

from baselines.training import Training
from bench.records import Status, read_outcome, run_id
from bench.run.runner import run
from bench.tracking.wandb_sink import open_sink, unreachable
from reports.api import build_report

KEY = "s3cret" + "0" * 34


@pytest.fixture
def unreachable_server(tmp_path):
    """Real W&B, and an address of the block that is kept free for documentation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", "http://192.0.2.1")
        patch.setenv("NETRC", str(tmp_path / "none"))
        patch.setattr("bench.tracking.attempts.TIMEOUT_SECONDS", 3)
        wandb.teardown()  # it remembers the server
        unreachable.clear()  # which other tests may have found so
        yield patch
    wandb.teardown()
    unreachable.clear()


def tracked(spec, folder, mode="offline"):
    began = time.monotonic()
    sink = partial(open_sink, mode=mode, project="test", experiment="small")
    outcome = run(spec, folder, data_root=None, open_sink=sink)
    return outcome, time.monotonic() - began


def raises(*arguments, **options):
    raise ConnectionError("the tracker\nis broken")


def hangs(*arguments, **options):
    time.sleep(3600)


def exits(*arguments, **options):
    sys.exit(3)


PARTS = ("_open", "_log_evaluation", "_finish")
FAULTS = {"ConnectionError: the tracker is broken": raises, "no answer in 2 s": hangs, "SystemExit: 3": exits}
QUICK = {(PARTS[0], raises), (PARTS[1], hangs), (PARTS[1], raises), (PARTS[2], exits)}


@pytest.mark.parametrize(
    ("part", "act", "words"),
    [
        pytest.param(part, act, words, marks=() if (part, act) in QUICK else pytest.mark.slow)
        for part in PARTS for words, act in FAULTS.items()
    ],
)  # fmt: skip
def test_a_broken_tracker_costs_one_warning_and_one_time_out(part, act, words, tmp_path, monkeypatch, caplog):
    if act is hangs:
        monkeypatch.setattr("bench.tracking.attempts.TIMEOUT_SECONDS", 2)
    monkeypatch.setattr(f"bench.tracking.wandb_sink.WandbSink.{part}", act)
    spec = experiment(tmp_path, "fixed").specs[0]
    outcome, _ = tracked(spec, tmp_path / "runs")
    run_one(spec, tmp_path / "whole")
    assert outcome.status is Status.BUDGET_REACHED
    assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "whole" / run_id(spec))
    assert told(caplog) == [f"run {run_id(spec)} is no longer tracked by W&B ({words}); its records are complete"]
    assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds)
    assert outcome.accounts["tracking"] >= (2 if act is hangs and part != "_finish" else 0)


def test_a_slow_tracker_is_on_its_own_account(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.tracking.wandb_sink.WandbSink._log_evaluation", lambda *arguments: time.sleep(0.15))
    outcome, _ = tracked(experiment(tmp_path, "fixed").specs[0], tmp_path)
    assert outcome.accounts["tracking"] > 7 * 0.15
    assert outcome.counted_seconds < 0.5 * outcome.accounts["tracking"]


def children(process):
    """The processes that any of its threads has begun."""
    paths = Path("/proc").glob(f"{process}/task/*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


def test_a_tracker_whose_process_is_stopped(tmp_path, monkeypatch, caplog):
    """The process that W&B writes its files in no longer answers."""
    spec = experiment(tmp_path, "fixed").specs[0]
    tracked({**spec, "seed": 7}, tmp_path)
    monkeypatch.setattr("bench.tracking.attempts.TIMEOUT_SECONDS", 1)
    helpers = [child for child in children(os.getpid()) if "wandb" in Path(f"/proc/{child}/cmdline").read_text()]
    for helper in helpers:
        os.kill(helper, signal.SIGSTOP)
    try:
        outcome, seconds = tracked(spec, tmp_path)
    finally:
        for helper in helpers:
            os.kill(helper, signal.SIGCONT)
    assert helpers
    assert outcome.status is Status.BUDGET_REACHED
    assert len(told(caplog)) == 1
    assert seconds < 5


@pytest.mark.parametrize(("key", "words"), [("", "UsageError: "), (KEY, "no answer in 3 s")])
def test_without_network_tracking_falls_back_to_files_once(key, words, tmp_path, caplog, unreachable_server):
    specs = experiment(tmp_path, "fixed", seeds=[0, 1, 2]).specs
    with unreachable_server.context() as patch:
        patch.setenv("WANDB_API_KEY", key)
        outcomes = [tracked(spec, tmp_path / "runs", "online") for spec in specs]
    assert [outcome.status for outcome, _ in outcomes] == [Status.BUDGET_REACHED] * 3
    (warning,) = told(caplog)
    assert warning.startswith(f"W&B cannot be reached ({words}")
    assert warning.endswith("); runs are kept offline until `oho-bench sync` uploads them")
    assert outcomes[0][0].accounts["tracking"] < 8
    assert max(outcome.accounts["tracking"] for outcome, _ in outcomes[1:]) < 2
    assert len(list((tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb"))) == 3


# Privacy


def everything_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_neither_secrets_nor_the_home_folder_are_recorded(tmp_path):
    """A run that succeeds and one whose traceback goes through files below the home folder, tracked, and their report."""
    secrets = {"WANDB_API_KEY": KEY, "DATABASE_PASSWORD": "hunter2hunter2", "HOME": str(ROOT)}
    out = tmp_path / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        spec = experiment(tmp_path, "fixed").specs[0]
        tracked(spec, out)
        hoard = Hoard(seed=1)
        patch.setattr(Training, "advance", lambda method, state, **options: hoard.advance(method, state, **options))
        failing = experiment(tmp_path, "fixed", seeds=[0, 1])
        assert outcome_of([failing], out) == {Status.FAILED: 1}
        build_report(out, tmp_path / "report.pdf")
    message = read_outcome(out / run_id({**spec, "seed": 1})).message
    assert 'File "~/bench/run/runner.py", line' in message
    if shutil.which("pdftotext"):  # of poppler
        subprocess.run(["pdftotext", tmp_path / "report.pdf", out / "report.txt"], check=True)
    shutil.copy(tmp_path / "report.html", out)
    found = everything_in(out)
    assert len(found) > 10
    for path, content in found.items():
        assert KEY.encode() not in content, path
        assert b"hunter2" not in content, path
        assert f"{ROOT}/".encode() not in content, path
