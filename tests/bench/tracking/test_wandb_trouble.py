"""The real wandb in trouble, against a small server on the loopback interface: docs/wandb.md, word for word.

The server proves what the client does, not what W&B answers.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import wandb
from faults import told
from helpers import ROOT, experiment, oho_bench
from made_up_runs import evaluation, incumbent, moment, spec_of, write_run
from typer.testing import CliRunner
from wandb_server import KEY, Server

from bench.cli import app
from bench.records import Manifest, read_run, write_manifest
from bench.tracking.transcripts import transcripts
from bench.tracking.wandb_settings import online_patience
from bench.tracking.wandb_sink import NoSink, _warn_once, open_sink, unreachable
from bench.tracking.wandb_words import in_words, why_unusable


@pytest.fixture
def server(tmp_path):
    """A server on which the user has a key; gone before the other fixtures look."""
    with pytest.MonkeyPatch.context() as patch:
        server = Server()
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", server.address)
        patch.setenv("HOME", str(tmp_path / "home"))
        wandb.teardown()  # it remembers another one
        unreachable.clear()
        yield server
        wandb.teardown()
        unreachable.clear()
        server.listener.shutdown()


RECORDS = [make(step, 1 / step) for step in (1, 2, 3, 4) for make in (incumbent, evaluation)]


def tracked(root, seed=0, *, mode="online", between=lambda: None):
    """A made-up run that is tracked, and what is called after its first half."""
    identity = write_run(root, spec := spec_of("fixed", seed), RECORDS)
    ended = read_run(root / identity)
    sink = open_sink(identity, spec, root / identity, mode=mode, project="test", experiment="small")
    for number, record in enumerate(ended.records):
        sink.record(record)
        if number == len(RECORDS) // 2:
            between()
    sink.close(ended.outcome)
    return ended


def sync(root, *runs):
    write_manifest(root, Manifest("small", (), {}, tuple(run.id for run in runs), project="test"))
    return oho_bench("sync", root).stdout.splitlines()[-1]  # in a process without what W&B has in hand here


def assert_it_has(server, *runs):
    """The server has each run's rows as the records have them, and no other run."""
    expected = {each.name: each.rows for run in runs for each in transcripts(run, experiment="small")}
    assert {name: held["rows"] for name, held in server.runs.items()} == expected


def test_rows_that_are_refused_are_told_of(server, tmp_path, caplog):
    server.refuse = {"file_stream": 401}
    first = tracked(tmp_path)
    (line,) = told(caplog)
    assert line == (
        f"run {first.id} is no longer tracked by W&B (ConnectionError: filestream: failed to upload: 401 Unauthorized "
        "not with me); its records are complete; later runs are kept offline"
    )


def test_a_key_that_is_wrong_is_told_in_the_words_of_the_server(server, tmp_path, caplog):
    server.refuse = {"graphql": 401}
    tracked(tmp_path)
    (line,) = told(caplog)
    assert line == (
        "W&B cannot be reached (CommError: returned error 401: not with me); runs are kept offline until `oho-bench sync` "
        "uploads them"
    )


def test_neither_host_nor_user_nor_paths_go_up(server, tmp_path, monkeypatch):
    """Whatever the client sends by itself: headers, requests and files."""
    names = {"USER": "a-telling-user", "LOGNAME": "a-telling-user", "HOSTNAME": "a-telling-host", "PWD": str(tmp_path)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert_it_has(server, tracked(tmp_path))
    private = (
        *names.values(),
        socket.gethostname(),
        sys.executable,
        str(ROOT),
        str(Path.home()),
        str(Path.cwd()),
    )
    assert server.files
    assert not [each for each in private if each.encode() in server.heard]


@pytest.fixture
def forgetful():
    """What is remembered of the wandb that is installed, and told once."""
    for known in (why_unusable, _warn_once):
        known.cache_clear()
    yield
    for known in (why_unusable, _warn_once):
        known.cache_clear()


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (None, "ModuleNotFoundError: import of wandb halted; None in sys.modules"),
        ("0.19.2", "wandb 0.31 or later is needed, and 0.19.2 is installed"),
    ],
)
def test_without_a_wandb_that_can_be_used_runs_go_on(installed, words, tmp_path, caplog, monkeypatch, forgetful):
    if installed:
        monkeypatch.setattr(wandb, "__version__", installed)
    else:
        monkeypatch.setitem(sys.modules, "wandb", None)
    for mode in ("online", "offline"):
        assert isinstance(open_sink("0" * 16, {}, tmp_path, mode=mode, project="test", experiment="small"), NoSink)
    (line,) = told(caplog)
    assert line == f"W&B cannot be used ({words}); the records are complete, and `oho-bench sync` can upload them later"
    answer = CliRunner().invoke(app, ["sync", str(tmp_path)])
    assert (answer.exit_code, answer.stderr) == (1, f"oho-bench: W&B cannot be used: {words}\n")


DIAL = "dial tcp 127.0.0.1:9: connect: connection refused"
POST = 'Post "http://127.0.0.1:9/graphql": ' + DIAL


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (f"Failed to get resume status for run a-b: POST http://127.0.0.1:9/graphql giving up after 3 attempt(s): {POST}\n"
         f"while retrying: {POST}", DIAL),
        ("Error initializing run: POST http://w.example.org/graphql giving up after 4 attempt(s)\nwhile retrying: "
         "HTTP 429: rate limit exceeded", "HTTP 429: rate limit exceeded"),
        ('returned error 404: {"data":null,"errors":[{"message":"no such entity","path":["a"]}]}',
         "returned error 404: no such entity"),
    ],
)  # fmt: skip
def test_the_reason_alone_is_told(said, words):
    assert in_words(said) == words
    assert len(in_words(f"<html>{'x' * 5000}</html>")) <= 300


def test_how_long_a_run_waits_is_the_users_first(monkeypatch):
    monkeypatch.setenv("WANDB_X_GRAPHQL_TIMEOUT_SECONDS", "15")
    assert online_patience().keys() >= {"x_graphql_retry_max"}
    assert "x_graphql_timeout_seconds" not in online_patience()


# Slower


def close(server):
    server.listener.shutdown()
    server.listener.server_close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"graphql": 429}, "CommError: HTTP 429: not with me"), ({"graphql": 500}, "CommError: HTTP 500: not with me"),
        ({"graphql": 404}, "not with me"), ({"file_stream": 401}, "401 Unauthorized not with me"),
        ({"file_stream": 429}, "no answer in 20 s"), ({"file_stream": 500}, "no answer in 20 s"),
        ("dies", "no answer in 20 s"), ("gone", "connection refused"),
    ],
    ids=str,
)  # fmt: skip
def test_a_server_in_trouble_costs_one_line_and_nothing_is_lost(trouble, words, server, tmp_path, caplog):
    between = partial(close, server) if trouble == "dies" else lambda: None
    if trouble == "gone":
        close(server)
    server.refuse = trouble if isinstance(trouble, dict) else {}
    began = time.monotonic()
    runs = [tracked(tmp_path / "runs", 0, between=between), tracked(tmp_path / "runs", 1)]
    assert time.monotonic() - began < 40  # one time-out, on a machine that may be busy
    (line,) = told(caplog)
    assert words in line
    assert line.endswith(("until `oho-bench sync` uploads them", "later runs are kept offline"))
    with pytest.MonkeyPatch.context() as patch:
        other = Server()
        patch.setenv("WANDB_BASE_URL", other.address)
        assert sync(tmp_path / "runs", *runs) == "1 re-created from records, 1 uploaded"
        assert_it_has(other, *runs)
        requests = other.requests
        assert sync(tmp_path / "runs", *runs) == "2 already there"
        assert other.requests == requests
        other.listener.shutdown()


@pytest.mark.slow
def test_a_thousand_trials_are_a_table_whose_memory_and_time_are_flat(tmp_path):
    spec, records, trials = spec_of("random-search", 0, over="fixed"), [], 1000
    for trial in range(trials):
        records += [{**evaluation(100 * trial + step, 0.5), "trial": trial} for step in (50, 100)]
        end = {"steps": 100, "status": "finished", "hyper": {"lr": 0.1}}
        records.append({"kind": "trial", **moment(100 * (trial + 1), 0.5, trial), **end})
    ended = read_run(tmp_path / write_run(tmp_path, spec, records))
    sink = open_sink(ended.id, spec, ended.folder, mode="offline", project="test", experiment="small", trial_runs=5)
    marks = []
    for number, record in enumerate(ended.records):
        sink.record(record)
        if number % 600 == 599:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            marks.append((time.process_time(), resident, threading.active_count()))
    sink.close(ended.outcome)
    assert not sink.failed
    seconds = [after[0] - before[0] for before, after in pairwise(marks)]
    assert max(seconds[1:]) < 3 * min(seconds) + 0.5
    assert marks[-1][1] - marks[0][1] < 20e6
    assert marks[-1][2] == marks[0][2]
    assert len(list(ended.folder.glob("wandb/*run-*/run-*.wandb"))) == 1 + 5
    (table,) = ended.folder.glob("wandb/*run-*/files/media/table/*.json")
    assert len(json.loads(table.read_text())["data"]) == trials


PROGRAM = """
import json, sys
from functools import partial
from pathlib import Path
from bench.process.signals import Stopper
from bench.run.runner import run
from bench.tracking.wandb_sink import open_sink
sink = partial(open_sink, mode=sys.argv[3], project="test", experiment="small")
with (stopper := Stopper()).listening():
    run(json.loads(sys.argv[1]), Path(sys.argv[2]), data_root=None, open_sink=sink, stopper=stopper, checkpoint_seconds=0.0)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # five processes, on a machine that may be busy
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_by_a_signal_goes_up_once(mode, number, server, tmp_path):
    (spec,) = experiment(tmp_path, "fixed", overrides=("budget.steps=400",)).specs
    command = [sys.executable, "-c", PROGRAM, json.dumps(spec), str(tmp_path / "runs"), mode]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    subprocess.run(command, check=True)
    continued = read_run(next(tmp_path.glob("runs/*/spec.json")).parent)
    assert continued.outcome.conditions["resumptions"] == 1
    # The file of an online run would add its rows once more.
    verdict = "uploaded" if mode == "offline" else "re-created from records"
    assert sync(tmp_path / "runs", continued) == f"1 {verdict}"
    assert_it_has(server, continued)
    requests = server.requests
    assert sync(tmp_path / "runs", continued) == "1 already there"
    assert server.requests == requests
