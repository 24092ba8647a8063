"""`oho-bench sync` with the real wandb, against a small server on the loopback interface.

The server takes everything in the shape that wandb expects: it proves what the client sends, not what W&B accepts.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from faults import told
from forked_uploads import forked_uploads
from helpers import experiment, rewrite
from made_up_runs import evaluation, incumbent, spec_of, write_run
from typer.testing import CliRunner
from wandb_server import KEY, Server

from bench.cli import app
from bench.records import Manifest, read_run, write_manifest
from bench.run.runner import run
from bench.tracking.transcripts import read_back, transcripts
from bench.tracking.wandb_sink import open_sink, unreachable


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A results folder with two ended runs, tracked offline, the second one a search."""
    folder = tmp_path_factory.mktemp("tracked")
    planned = experiment(folder, "oho-global", "random-search", overrides=("budget.steps=20",))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", str(folder))
        plan = {"figures": (), "config": planned.resolved}
        sink = partial(open_sink, mode="offline", project="test", experiment="small", plan=plan)
        outcomes = [run(spec, folder / "runs", data_root=None, open_sink=sink) for spec in planned.specs]
    assert outcomes[1].trials > 1
    ids = sorted(path.parent.name for path in folder.glob("runs/*/spec.json"))
    write_manifest(folder / "runs", Manifest("small", (), planned.resolved, tuple(ids), project="test"))
    return folder / "runs"


@pytest.fixture
def results(tracked, tmp_path):
    shutil.copytree(tracked, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


@pytest.fixture
def logged_in(tmp_path):
    """With a key, and a home of the test's own; gone before the other fixtures look.  Uploads are forks."""
    with pytest.MonkeyPatch.context() as patch, forked_uploads():
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("HOME", str(tmp_path / "home"))
        yield patch


@pytest.fixture
def server(logged_in):
    server = Server()
    logged_in.setenv("WANDB_BASE_URL", server.address)
    yield server
    server.listener.shutdown()


@pytest.fixture(scope="module")
def uploaded(tracked, tmp_path_factory):
    """The same folder once it is uploaded, the server that has it, what that was told then, and what `sync` said.

    The only upload here by the command itself, `python -m wandb sync`."""
    folder, server = tmp_path_factory.mktemp("uploaded"), Server()
    shutil.copytree(tracked, folder / "runs", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("API_KEY", KEY), ("BASE_URL", server.address), ("DIR", str(folder))):
            patch.setenv(f"WANDB_{name}", value)
        patch.setenv("HOME", str(folder / "home"))
        answer = sync(folder / "runs")
    yield SimpleNamespace(results=folder / "runs", server=server, runs=server.runs, answer=answer)
    server.listener.shutdown()


@pytest.fixture
def uploaded_results(uploaded, logged_in, tmp_path):
    """A copy of the uploaded folder, and the same server."""
    logged_in.setenv("WANDB_BASE_URL", uploaded.server.address)
    shutil.copytree(uploaded.results, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def sync(*arguments):
    return CliRunner().invoke(app, ["sync", *map(str, arguments)])


def summary(answer):
    return answer.stdout.splitlines()[-1]


def own_rows(results):
    """By name, from W&B's own files."""
    return {held.name: held.rows for held in map(read_back, results.glob("*/wandb/*run-*/run-*.wandb"))}


def memories(results):
    return list(results.glob("*/sync.json"))


def test_offline_runs_go_up_once(uploaded, uploaded_results):
    answer = uploaded.answer
    assert (answer.exit_code, summary(answer)) == (0, "2 uploaded"), answer.output
    assert {name: run["rows"] for name, run in uploaded.runs.items()} == own_rows(uploaded_results)
    requests = uploaded.server.requests
    answer = sync(uploaded_results)
    assert (answer.exit_code, summary(answer)) == (0, "2 already there")
    assert uploaded.server.requests == requests


def test_lost_files_are_written_anew_from_the_records(uploaded, uploaded_results, logged_in):
    results = uploaded_results
    for folder in results.glob("*/wandb"):
        shutil.rmtree(folder)
    other = Server()
    logged_in.setenv("WANDB_BASE_URL", other.address)
    answer = sync(results, "--project", "elsewhere", "--entity", "a-team")
    assert (answer.exit_code, summary(answer)) == (0, "2 re-created from records"), answer.output
    assert other.runs == uploaded.runs
    assert {(told["project"], told["entity"]) for told in other.told.values()} == {("elsewhere", "a-team")}
    trials = sum(len(read_run(path.parent).trials) for path in results.glob("*/spec.json"))
    assert len(other.told) == 2 + trials
    assert sys.prefix not in repr(other.told)
    for path in results.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    assert KEY not in answer.output
    assert other.address not in answer.output


def change_a_loss(text):
    return text.replace('"validation_loss": ', '"validation_loss": 1', 1)


def test_what_is_damaged_or_older_than_the_records_does_not_go_up(results, server):
    assert summary(sync(results, "--dry-run")) == "2 would be uploaded"
    assert summary(sync(results, "--dry-run", "--recreate")) == "2 would be re-created from records"
    first, second = sorted(results.glob("*/records.jsonl"))
    damaged = max(first.parent.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.stat().st_size)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    assert summary(sync(results, "--dry-run")) == "1 would be re-created from records, 1 would be uploaded"
    rewrite(second, change_a_loss)
    assert summary(sync(results, "--dry-run")) == "2 would be re-created from records"
    assert server.requests == 0
    assert memories(results) == []


def test_files_with_one_id_for_several_runs_do_not_go_up(results, server):
    """As `WANDB_RUN_ID` made older versions write them: W&B would mix the runs."""
    for folder in results.glob("*/"):
        path = max(folder.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime, default=None)
        if path:
            path.rename(path.with_name("run-abc.wandb"))
    assert summary(sync(results, "--dry-run")) == "2 would be re-created from records"
    assert server.requests == 0


def test_a_run_whose_records_changed_goes_up_again(uploaded, uploaded_results):
    results = uploaded_results
    rewrite(sorted(results.glob("*/records.jsonl"))[0], change_a_loss)
    answer = sync(results)
    assert summary(answer) == "1 already there, 1 re-created from records"
    assert "W&B keeps the older run" in answer.stdout
    assert {told["project"] for told in uploaded.server.told.values()} == {"test"}
    assert summary(sync(results)) == "2 already there"


def test_labels_are_those_of_the_plan_that_tracked_the_run(tmp_path, monkeypatch):
    """As a run that goes on gets them: a label that was changed after the run's end replaces the old one."""
    root = tmp_path / "runs"
    identity = write_run(root, spec := spec_of("fixed", 0), [evaluation(0, 1.0)])
    sink = open_sink(identity, spec, root / identity, mode="offline", project="second", experiment="second")
    sink.record(evaluation(0, 1.0))
    sink.close(read_run(root / identity).outcome)

    def relabel(label):
        for name in ("first", "second"):
            method = {**spec["method"], "label": f"{label}, {name}", "family": "schedule"}
            write_manifest(root, Manifest(name, (), {"methods": [method]}, (identity,), project=name))

    sent = []
    monkeypatch.setattr("bench.tracking.sync.upload", lambda files, **places: sent.extend(files))
    relabel("Fixed rate")
    answer = sync(root)
    assert answer.stdout.startswith(f"{identity}  second: Fixed rate, second, seed 0: re-created"), answer.output
    (path,) = sent
    assert path.stem == f"run-{json.loads((root / identity / 'wandb.json').read_text())['id']}"
    held = read_back(path)
    assert (held.name, held.project) == ("Fixed rate, second, seed 0", "second")
    assert [held.config[key] for key in ("experiment", "label", "family")] == ["second", "Fixed rate, second", "schedule"]
    assert held.config["spec"]["method"]["label"] == "Fixed rate, second"
    assert summary(sync(root)) == "1 already there"
    relabel("Constant rate")
    assert summary(sync(root, "--dry-run")) == "1 would be re-created from records"


@pytest.fixture
def online(server):
    """A tracker that is online, with that server."""
    wandb.teardown()  # it remembers another one
    yield partial(open_sink, mode="online", project="test", experiment="small")
    wandb.teardown()
    unreachable.clear()


def test_a_run_that_is_continued_online_has_each_row_once(online, server, tmp_path, caplog):
    """Two rows that the first process sent after its last checkpoint are redone; `sync` then replaces them."""
    root = tmp_path / "runs"
    records = [make(step, 1 / step) for step in (1, 2, 3, 4) for make in (incumbent, evaluation)]
    identity = write_run(root, spec := spec_of("fixed", 0), [])
    first = online(identity, spec, root / identity)
    for record in records[:6]:
        first.record(record)
    first._run.run.finish(exit_code=1)
    redone = [{**record, "wall_seconds": 7.0} for record in records[4:]]
    write_run(root, spec, [*records[:4], *redone])
    run = read_run(root / identity)
    second = online(identity, spec, root / identity)
    for record in records[:4]:
        second.record(record)
    second.caught_up()
    assert [line for line in told(caplog) if "2 rows of the work that is redone" in line]
    for record in redone:
        second.record(record)
    second.close(run.outcome)
    ((name, held),) = server.runs.items()
    assert len(held["rows"]) == len(records)
    assert [row["wall_seconds"] for row in held["rows"][6:]] == [7.0, 7.0]
    write_manifest(root, Manifest("small", (), {}, (identity,), project="test"))
    assert summary(sync(root)) == "1 re-created from records"
    (expected,) = transcripts(run, experiment="small")
    assert server.runs.keys() == {expected.name} == {name}
    assert server.runs[name]["rows"] == expected.rows
    requests = server.requests
    assert summary(sync(root)) == "1 already there"
    assert server.requests == requests
    assert summary(sync(root, "--recreate", "--project", "test")) == "1 re-created from records"
    assert server.runs[name]["rows"] == expected.rows


def test_the_table_of_a_searchs_trials_goes_up(uploaded):
    """Another test may have created the search anew, from the same records."""
    files = uploaded.server.files.items()
    (table,) = {content for (_, name), content in files if name.startswith("media/table/trials")}
    assert len(json.loads(table)["data"]) == 2


def test_hosts_and_programs_do_not_go_up(uploaded):
    for told_of in uploaded.server.told.values():
        assert not told_of["host"]
        assert not Path(told_of["program"] or "oho-bench").is_absolute()


PROGRAM = """
import json, sys
from functools import partial
from pathlib import Path
from bench.run.runner import run
from bench.tracking.wandb_sink import open_sink
sink = partial(open_sink, mode="offline", project="test", experiment="small")
run(json.loads(sys.argv[1]), Path(sys.argv[2]), data_root=None, open_sink=sink, checkpoint_seconds=0.0)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_is_one_wandb_run_once_it_is_continued(tmp_path):
    (spec,) = experiment(tmp_path, "fixed", overrides=("budget.steps=1000",)).specs
    command = [sys.executable, "-c", PROGRAM, json.dumps(spec), str(tmp_path / "runs")]
    process = subprocess.Popen(command)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    (killed,) = tmp_path.glob("runs/*/wandb/*run-*/run-*.wandb")
    subprocess.run(command, check=True)
    (path,) = tmp_path.glob("runs/*/wandb/*run-*/run-*.wandb")
    assert path.name == killed.name
    continued = read_run(path.parents[2])
    (expected,) = transcripts(continued, experiment="small")
    assert continued.outcome.conditions["resumptions"] == 1
    assert read_back(path).rows == expected.rows


def test_interrupted_it_goes_on_where_it_was(results, server):
    first, second = sorted(path.parent for path in results.glob("*/spec.json"))
    server.hang_after = 1 + len(read_run(first).trials)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "sync", results], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.hanging.wait(60)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert memories(results) == [first / "sync.json"]
    server.hang_after = None
    before = set(server.told)
    answer = sync(results)
    assert (answer.exit_code, summary(answer)) == (0, "1 already there, 1 uploaded"), answer.output
    assert len(set(server.told) - before) == 1 + len(read_run(second).trials)


@pytest.mark.parametrize(
    "refusal", [("graphql", 401), pytest.param(("graphql", 500), marks=pytest.mark.slow), ("file_stream", 401)]
)
def test_a_server_that_refuses_is_told_of(refusal, results, server):
    server.refuse = dict([refusal])
    answer = sync(results)
    assert answer.exit_code == 1
    assert memories(results) == []
    assert ("not with me" if refusal[0] == "graphql" else "failed: Fatal error while uploading data") in answer.output
    assert KEY not in answer.output


def test_without_a_server_it_says_so_in_a_line_and_stops(results, server):
    server.listener.shutdown()
    server.listener.server_close()
    start = time.monotonic()
    answer = sync(results)
    assert time.monotonic() - start < 20
    assert answer.exit_code == 1
    (line,) = answer.output.splitlines()
    assert line.startswith("oho-bench: W&B cannot be used:")
    assert line.endswith("(2 of 2 runs are left)")


def test_without_a_login_it_says_so_in_a_line_and_stops(results, server, logged_in):
    logged_in.delenv("WANDB_API_KEY")
    answer = sync(results)
    assert answer.exit_code == 1
    (line,) = answer.output.splitlines()
    assert "wandb login" in line
    assert server.requests == 0
    assert str(Path.home()) not in line
