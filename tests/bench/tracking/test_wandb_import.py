"""Results folders that are made of what W&B keeps: its own files, and a project on a small server of the tests' own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import pytest
from helpers import experiment
from made_up_runs import evaluation, incumbent, write_run
from typer.testing import CliRunner
from wandb_server import Server, client_of

from bench.cli import app
from bench.command.view import named_runs
from bench.records import Manifest, Status, read_manifests, read_run, run_id, write_manifest
from bench.records.frames import results
from bench.run.runner import run
from bench.tracking import wandb_import
from bench.tracking.transcripts import read_back, transcripts
from bench.tracking.wandb_import import Kept
from bench.tracking.wandb_sink import open_sink
from reports.tables import read_tables

WRITTEN = ("spec.json", "records.jsonl", "outcome.json")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A results folder with a search of three trials, one of which is a W&B run, too."""
    folder = tmp_path_factory.mktemp("tracked")
    planned = experiment(folder, "random-search", overrides=("budget.steps=30", "evaluations=3"))
    plan = {"figures": ("distribution",), "config": planned.resolved}
    sink = partial(open_sink, mode="offline", project="test", experiment="small", trial_runs=1, plan=plan)
    for spec in planned.specs:
        run(spec, folder / "runs", data_root=None, open_sink=sink)
    ids = tuple(run_id(spec) for spec in planned.specs)
    write_manifest(folder / "runs", Manifest("small", ("distribution",), planned.resolved, ids))
    return folder / "runs"


def imported(*arguments):
    return CliRunner().invoke(app, ["import-wandb", *map(str, arguments)])


def assert_same(folder, original):
    """All that reports read is as it was, to the last digit."""
    for path in original.glob("*/spec.json"):
        for name in WRITTEN:
            assert (folder / path.parent.name / name).read_bytes() == path.with_name(name).read_bytes(), name
    for records in (False, True):
        pd.testing.assert_frame_equal(results(folder, records=records), results(original, records=records))
    a, b = read_tables(folder), read_tables(original)
    for name in ("runs", "evaluations", "incumbents", "trials"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name))


def test_files_of_wandb_become_the_results_folder_that_they_were_made_of(tracked, tmp_path):
    cut = tmp_path / "wandb" / "run-cut.wandb"
    cut.parent.mkdir()
    (whole, *_) = tracked.glob("*/wandb/*run-*/run-*.wandb")
    cut.write_bytes(whole.read_bytes()[:3000])
    answer = imported(tracked, "--out", tmp_path / "again")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines() == [
        "1 imported", "W&B does not keep folders in names of files, tracebacks and checkpoints",
    ]  # fmt: skip
    assert_same(tmp_path / "again", tracked)
    answer = imported(cut.parent, "--out", tmp_path / "none")
    assert answer.exit_code == 2
    assert f"left out: {cut}: ends before its run does" in answer.stdout
    assert answer.stderr == f"oho-bench: {cut.parent}: no run of oho-bench can be imported\n"


class Project(Server):
    """Serves runs as W&B's client asks for them: two of them a page, and their rows as they are kept."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def answer(self, path, content):
        content = {"variables": {}, **content}
        told, query = content["variables"], content["query"]
        if "query Runs(" in query:
            if told["project"] != "test":
                return {"data": {"project": None}}
            first = int(told["cursor"] or 0)
            names = list(self.kept)[first : first + 2]
            edges = [{"node": self.node(name), "cursor": str(first + 1 + k)} for k, name in enumerate(names)]
            info = {"endCursor": str(first + 2), "hasNextPage": first + 2 < len(self.kept)}
            runs = {"edges": edges, "pageInfo": info}
            return {"data": {"project": {"internalId": "1", "runCount": len(self.kept), "readOnly": False, "runs": runs}}}
        name = told.get("name") or told.get("runName") or told.get("run")
        if "RunHistoryKeys" in query:
            return self.run(historyKeys={"keys": {}, "lastStep": len(self.kept[name].rows) - 1})
        if "RunParquetHistory" in query:
            live = [{"_step": step} for step in range(len(self.kept[name].rows))]
            return self.run(parquetHistory={"parquetUrls": [], "liveData": live})
        if "query HistoryPage" in query:
            rows = [json.dumps({"_step": step, **row}) for step, row in enumerate(self.kept[name].rows)]
            return self.run(history=rows[told["minStep"] : told["maxStep"]])
        if "query Run(" in query:
            return self.run(**self.node(name))
        return super().answer(path, content)

    def run(self, **content):
        return {"data": {"project": {"internalId": "1", "run": content}}}

    def node(self, name):
        kept = self.kept[name]
        return {
            "id": name, "name": name, "projectId": "1", "displayName": kept.name, "tags": [], "sweepName": "",
            "state": "finished", "group": "", "jobType": "run", "commit": "", "readOnly": False, "description": "",
            "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00", "notes": "", "historyLineCount": 9,
            "user": {"name": "a", "username": "a"}, "systemMetrics": "{}", "summaryMetrics": json.dumps(kept.summary),
            "config": json.dumps({key: {"value": value} for key, value in kept.config.items()}),
        }  # fmt: skip


@pytest.fixture
def server(tracked, tmp_path):
    """The project as W&B would keep it once the files are uploaded, and a run of somebody else's."""
    kept = {path.stem: read_back(path) for path in sorted(tracked.glob("*/wandb/*run-*/run-*.wandb"))}
    kept["foreign"] = type(next(iter(kept.values())))("foreign", config={"lr": 1}, rows=[{"loss": 1}])
    server = Project(kept)
    with client_of(server, tmp_path):
        yield server


def test_a_project_on_a_server_becomes_the_results_folder(server, tracked, tmp_path):
    answer = imported("someone/test", "--out", tmp_path / "again")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[0] == "1 imported"
    assert_same(tmp_path / "again", tracked)
    answer = imported("someone/other", "--out", tmp_path / "other")
    assert (answer.exit_code, answer.stderr.count("\n")) == (2, 1)
    assert "W&B: " in answer.stderr
    assert not (tmp_path / "other").exists()


# What is made of runs that nobody has made


def kept_of(root, plan, **changes):
    """What W&B keeps of all runs in a folder."""
    for path in sorted(root.glob("*/spec.json")):
        (held,) = transcripts(read_run(path.parent), experiment="small", plan=plan)
        lines = tuple(row.get("records", "") for row in held.rows)
        yield Kept(path.parent.name, {**held.config, **changes}, held.summary, lines)


@pytest.fixture
def hard(tmp_path, monkeypatch):
    """Runs that failed, diverged, are void, or have more records than rows; and what is imported of them."""
    planned = experiment(tmp_path, "fixed", "oho-global", "population", seeds=[0, 1])
    fixed, online, population, other, *_ = planned.specs
    shock = {**evaluation(0, 2.0), "kind": "shock", "event": "lr set to 3 at epoch 0"}
    interval = {**evaluation(5, None), "kind": "trial", "hyper": {"lr": 0.1 + 0.2}, "status": "ended", "steps": 5}
    lost = {**evaluation(10, None), "hyper": {"lr": [None, 1e-17]}, "scalars": {"Mine: own-1": 1 / 3}}
    root = tmp_path / "runs"
    write_run(root, fixed, [], Status.FAILED, message='Traceback\n  File "/home/me/x.py"\nValueError: no "/home/me/data"')
    write_run(root, online, [incumbent(0, 2.0), evaluation(0, 2.0), shock, lost], Status.DIVERGED)
    write_run(root, population, [evaluation(0, 2.0), interval, interval, evaluation(9, 1.0), interval])
    write_run(root, other, [evaluation(0, 2.0)], invalid_because=["the machine slept"])
    plan = {"figures": (), "config": planned.resolved}
    write_manifest(root, Manifest("small", (), planned.resolved, tuple(map(run_id, planned.specs))))
    return root, plan, monkeypatch


def test_runs_that_ended_badly_come_back_without_folders(hard, tmp_path):
    root, plan, patch = hard
    patch.setattr(wandb_import, "kept_in", lambda source: kept_of(root, plan))
    first, *_ = wandb_import.import_wandb("made up", tmp_path / "again")
    assert first == "4 imported"
    for path in root.glob("*/spec.json"):
        original, again = read_run(path.parent), read_run(tmp_path / "again" / path.parent.name)
        assert again.records == original.records
        assert again.outcome.accounts == original.outcome.accounts
        assert again.outcome.invalid_because == original.outcome.invalid_because
        if original.outcome.status is Status.FAILED:
            assert again.outcome.message == 'ValueError: no "data"'
    tables = [results(folder).drop(columns="message") for folder in (tmp_path / "again", root)]
    pd.testing.assert_frame_equal(*tables)


def test_the_newest_of_several_wandb_runs_counts(hard, tmp_path):
    root, plan, patch = hard
    kept = list(kept_of(root, plan))
    late = json.loads(kept[0].summary["outcome"])
    late["environment"]["finished"], late["counted_seconds"] = "2027-01-01T00:00:00+00:00", 7.0
    newer = Kept("newer", kept[0].config, {"outcome": json.dumps(late)}, kept[0].lines)
    patch.setattr(wandb_import, "kept_in", lambda source: [newer, *kept])
    said = list(wandb_import.import_wandb("made up", tmp_path / "again"))
    assert said[0] == "4 imported, 1 older W&B runs of the same runs left out"
    assert read_run(tmp_path / "again" / kept[0].config["run"]).outcome.counted_seconds == 7.0


def test_plans_are_as_repeated_runs_would_have_left_them(hard, tmp_path):
    """More seeds extend a plan, and other methods replace it, as runs of a sweep do."""
    root, plan, patch = hard
    config = plan["config"]
    first, second, *_ = kept_of(root, {**plan, "config": {**config, "seeds": [0]}})
    patch.setattr(wandb_import, "kept_in", lambda source: [first, *kept_of(root, {**plan, "specs": []})])
    list(wandb_import.import_wandb("made up", tmp_path / "again"))
    assert (tmp_path / "again/experiments/small.json").read_text() == (root / "experiments/small.json").read_text()
    one = read_run(root / second.config["run"]).spec
    trial = {"figures": (), "config": {**config, "methods": config["methods"][:1]}, "specs": [one]}
    its = [each for each in kept_of(root, trial) if each.place == run_id(one)]
    patch.setattr(wandb_import, "kept_in", lambda source: its)
    list(wandb_import.import_wandb("made up", tmp_path / "trial"))
    (manifest,) = read_manifests(tmp_path / "trial")
    assert manifest.runs == (run_id(one),)
    assert read_run(tmp_path / "trial" / run_id(one)).spec == one


def test_what_was_changed_is_left_out_with_its_reason(hard, tmp_path):
    root, plan, patch = hard
    good = next(kept for kept in kept_of(root, plan) if kept.lines)

    def changed(**changes):
        return Kept("it", {**good.config, **changes.get("config", {})}, {**good.summary, **changes.get("summary", {})},
                    changes.get("lines", good.lines))  # fmt: skip

    wrong = {
        "older versions did not send them": changed(config={"plan": None}),
        "an experiment's name has at most": changed(config={"experiment": "../../elsewhere"}),
        "the plan has no such run": changed(config={"run": "abc", "label": "another"}),
        "the plan is incomplete": changed(config={"plan": json.dumps({"figures": [], "config": {"seeds": [0]}})}),
        "status: one of": changed(summary={"outcome": json.dumps({"status": "splendid"})}),
        "must be a number": changed(lines=('{"kind": "evaluation"}',)),
        "not as it was sent ('str' object": changed(config={"plan": json.dumps({**plan, "specs": ["x"]})}),
        "not as it was sent (Expecting": changed(lines=("{",)),
    }
    for number, (reason, kept) in enumerate(wrong.items()):
        patch.setattr(wandb_import, "kept_in", lambda source, kept=kept: [good, kept])
        out = tmp_path / str(number)
        first, *_ = wandb_import.import_wandb("made up", out)
        assert first.startswith("left out: it: "), first
        assert reason in first
        assert len(list(out.glob("*/spec.json"))) == 1
    assert not (tmp_path / "elsewhere.json").exists()


def test_mistakes_are_one_line(tracked, tmp_path):
    for arguments, line in {
        ("nowhere",): "oho-bench: nowhere: no such file or folder, and not ENTITY/PROJECT either\n",
        (tmp_path / "empty",): f"oho-bench: {tmp_path / 'empty'}: holds no run of oho-bench\n",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        answer = imported(*arguments, "--out", tmp_path / "new")
        assert (answer.exit_code, answer.stderr) == (2, line)
    answer = imported(tracked, "--out", tracked)
    assert (answer.exit_code, answer.stderr) == (2, f"oho-bench: --out {tracked}: is not an empty folder; give a new one\n")


# oho-bench view


@pytest.mark.slow
def test_view_shows_the_runs_in_a_terminal(tracked):
    terminal, inner = os.openpty()
    command = [sys.executable, "-m", "bench.cli", "view", tracked]
    process = subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, env={**os.environ, "TERM": "xterm"}, start_new_session=True
    )
    try:
        shown, until = "", time.monotonic() + 60
        while "run-Random search, Fixed, seed 0" not in shown:
            assert time.monotonic() < until, shown
            if select.select([terminal], [], [], 1.0)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as from the keyboard
        process.wait(20)
        os.close(terminal)
        os.close(inner)


def test_view_names_runs_as_readers_do(tracked, tmp_path):
    named = dict(named_runs(tracked))
    assert sorted(named) == ["Random search, Fixed, seed 0", "Random search, Fixed, seed 0, trial 0"]
    assert all(list(folder.glob("run-*.wandb")) for folder in named.values())
    answer = CliRunner().invoke(app, ["view", str(tracked)])
    assert (answer.exit_code, answer.stderr) == (
        2, f"oho-bench: view: this is no terminal; `oho-bench report {tracked}` needs none\n",
    )  # fmt: skip
    write_manifest(tmp_path, Manifest("small", (), {}, ()))
    answer = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert answer.stderr.startswith(f"oho-bench: {tmp_path}: W&B has tracked no run of it; ")
