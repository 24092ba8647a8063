"""`run --workers N`: runs side by side are the runs of one process, whatever ends a worker or the command."""

import os
import signal
import threading
from multiprocessing.connection import Connection

import pytest
from faults import command, the_line, timeless
from forked_workers import Forked
from helpers import experiment, run_one, write_config
from processes import begun, children, state_of, until, within_a_run

from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.remote_run import Result
from bench.command.scheduling import Demand, End, Job, Share, Start
from bench.command.side_by_side import SideBySide
from bench.command.worker_pool import WorkerPool
from bench.process.signals import Interrupted
from bench.protocol.checkpoints import has_checkpoint
from bench.records import Status, read_outcome, read_run, run_id

SMALL = ["task.width=8", "budget.steps=20"]
LONG = ["task.width=8", "budget.steps=4000", "evaluations=400"]


@pytest.fixture
def pool(monkeypatch):
    """The processes of the workers, which are forks; on a machine that has two processors."""
    made = []

    def begun(words):
        made.append(Forked(words))
        return made[-1]

    monkeypatch.setattr("bench.command.worker_pool.begun", begun)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return made


def launched(experiments, out):
    journal = Journal.new()
    return SideBySide(2, os.getpid()).launch(experiments, plan(experiments, out), out, data_root=None, journal=journal)


def at(moment, act):
    """Does something in a thread once `moment` returns something true."""
    thread = threading.Thread(target=lambda: act(until(moment)))
    thread.start()
    return thread


def records_of(spec, out, least):
    path = out / run_id(spec) / "records.jsonl"
    return path.exists() and path.read_text().count("\n") >= least


def test_runs_side_by_side_have_the_records_of_one_process_and_timed_ones_come_last(tmp_path, pool, capsys):
    (tmp_path / "timed").mkdir()
    timed = experiment(tmp_path / "timed", "fixed", overrides=["experiment=timed", "task.width=8", "budget.seconds=0.02"])
    (tmp_path / "alone").mkdir()
    alone = experiment(tmp_path / "alone", "fixed", overrides=["experiment=alone", *SMALL, "population=off"], seeds=[2])
    small = experiment(tmp_path, "fixed", "prodigy", seeds=[0, 1], overrides=SMALL)
    assert launched([timed, alone, small], tmp_path / "runs") == {Status.BUDGET_REACHED: 6}
    assert len(pool) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.split("/6] ")[0] for line in lines][-1] == "[6"
    assert [run_id(timed.specs[0]) in lines[-2], run_id(alone.specs[0]) in lines[-1]] == [True, True]
    for spec in small.specs:
        outcome = read_outcome(tmp_path / "runs" / run_id(spec))
        if spec["method"]["name"] == "fixed":
            assert outcome.shared_by > 1
            continue
        run_one(spec, tmp_path / "here")
        assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "here" / run_id(spec))
        assert "it was made beside 1 other run" in outcome.disturbed_because
        assert outcome.valid
    for spec in (timed.specs[0], alone.specs[0]):
        assert read_outcome(tmp_path / "runs" / run_id(spec)).conditions["side_by_side"] == 1


def test_the_run_of_a_worker_that_is_killed_is_taken_over(tmp_path, pool, capsys):
    small = experiment(tmp_path, "oho-published", seeds=[0, 1], overrides=[*SMALL, "budget.steps=100"])
    out = tmp_path / "runs"
    thread = at(lambda: records_of(small.specs[0], out, 2), lambda found: pool[0].kill())
    assert launched([small], out) == {Status.BUDGET_REACHED: 2}
    thread.join()
    told = capsys.readouterr().err
    assert "killed by SIGKILL, as systems do when memory is short); it continues from its checkpoint" in told
    run_one(small.specs[0], tmp_path / "here")
    assert timeless(out / run_id(small.specs[0])) == timeless(tmp_path / "here" / run_id(small.specs[0]))


@pytest.mark.slow
def test_the_runs_of_a_batch_whose_worker_is_killed_are_made_alone(tmp_path, pool, capsys):
    small, out = experiment(tmp_path, "fixed", seeds=range(4), overrides=[*SMALL, "budget.steps=1000"]), tmp_path / "runs"
    thread = at(lambda: records_of(small.specs[0], out, 2), lambda found: pool[0].kill())
    assert launched([small], out) == {Status.BUDGET_REACHED: 4}
    thread.join()
    assert "when memory is short); each continues alone from its checkpoint" in capsys.readouterr().err


def test_a_signal_stops_all_runs_and_the_next_command_continues_them(tmp_path, pool):
    small, out = experiment(tmp_path, "oho-published", seeds=[0, 1], overrides=LONG), tmp_path / "runs"
    ready = lambda: all(records_of(spec, out, 2) for spec in small.specs)  # noqa: E731
    thread = at(ready, lambda found: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        launched([small], out)
    thread.join()
    for spec in small.specs:
        assert has_checkpoint(out / run_id(spec))
        assert read_outcome(out / run_id(spec)).status is Status.INTERRUPTED


def test_numbers_of_workers_that_a_machine_cannot_have_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    path = write_config(tmp_path, "fixed")
    line = the_line(command("run", path, "--workers", 3, "--dry-run"), 2)
    assert line == "oho-bench: --workers 3: this machine has 2 processors, and each worker needs one; at most 2"
    line = the_line(command("run", path, "--workers", 2, "--launcher", "slurm", "--dry-run"), 2)
    assert line == "oho-bench: --workers: is an option of --launcher local, not of slurm"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_or_killed_leaves_no_worker(number, tmp_path):
    out = tmp_path / "runs"
    words = [word for setting in LONG for word in ("--set", setting)]
    process = begun("run", write_config(tmp_path, "oho-published", "oho-full"), "--out", out, "--workers", 2, *words)
    until(lambda: len(list(out.glob("*/records.jsonl"))) == 2, seconds=90)
    within_a_run(out, records=3)
    (child,) = children(process.pid)
    workers = children(child)
    assert len(workers) == 2
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    until(lambda: not any(state_of(worker) not in ("", "Z") for worker in workers))
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert told.count("oho-bench: stopping after this step") == 1
        assert told.splitlines()[-1] == "oho-bench: stopped; repeat the command to continue"
        assert all(has_checkpoint(path.parent) for path in out.glob("*/records.jsonl"))
        assert {read_run(path.parent).outcome.status for path in out.glob("*/records.jsonl")} == {Status.INTERRUPTED}


class AtHand:
    """A worker that does what the test does with its end of the pipe."""

    def __init__(self, words):
        self.pipe = Connection(os.dup(words[0]))

    def wait(self, timeout=None):
        return 0


def test_work_is_given_to_no_worker_that_has_ended_or_is_about_to(monkeypatch):
    """One has lost its device, which it tells with its result; the next one dies while it has nothing to do."""
    made = []
    monkeypatch.setattr("bench.command.worker_pool.begun", lambda words: made.append(AtHand(words)) or made[-1])
    pool = WorkerPool(1, os.getpid())
    demand = Demand(on_gpu=False, timed=False, cpus=1.0, per_gpu=1, needs="")
    starts = {name: Start(Job(name, demand), pool.nodes()[0], Share(1.0, 0.0)) for name in "abc"}
    pool.start(starts["a"], {"given": "a"})
    assert made[0].pipe.recv() == {"given": "a"}
    made[0].pipe.send((Result(End.MADE), True))
    assert pool.wait(5.0) == [("a", Result(End.MADE))]
    pool.start(starts["b"], {"given": "b"})
    assert made[1].pipe.recv() == {"given": "b"}
    made[1].pipe.send((Result(End.MADE), False))
    assert pool.wait(5.0) == [("b", Result(End.MADE))]
    made[1].pipe.close()
    pool.start(starts["c"], {"given": "c"})
    assert made[2].pipe.recv() == {"given": "c"}
    assert len(made) == 3
    pool.close()
