"""Ctrl-C, SIGTERM, a closed terminal, suspension: to the command, to the process that works for it, at any moment."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from faults import command
from forks import become, carry_out
from helpers import ROOT, experiment, write_config
from processes import begun, children, state_of, until, watched_over, within, within_a_run

import bench.command.run_series
import bench.records
import bench.run.runner
from bench.command.planning import plan
from bench.command.run_series import launch
from bench.command.status import describe
from bench.process.signals import Interrupted, Stopper
from bench.process.stopped_parent import can_be_seen
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, read_outcome, read_run, run_id
from bench.run.environment import finished_now


def test_a_signal_while_a_run_is_being_ended_stops_after_it(tmp_path, monkeypatch):
    def signalled(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return finished_now(*arguments, **options)

    monkeypatch.setattr(bench.run.runner, "finished_now", signalled)
    both = experiment(tmp_path, "fixed", "adam")
    with pytest.raises(Interrupted):
        launch([both], plan([both], tmp_path), tmp_path, data_root=None)
    first, second = (read_outcome(tmp_path / run_id(spec)) for spec in both.specs)
    assert first.status is Status.BUDGET_REACHED
    assert second is None


class ClosedTerminal:
    """What writers find if SIGHUP is ignored: so many writes are well, and then it is closed."""

    def __init__(self, writes):
        self.left = writes

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "Input/output error")

    def flush(self):
        """Nothing."""

    def isatty(self):
        return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the bar's own thread
@pytest.mark.parametrize("writes", [0, 4])
def test_a_terminal_that_is_gone_takes_no_run_with_it(writes, tmp_path, monkeypatch):
    both = experiment(tmp_path, "fixed", "adam")
    monkeypatch.setattr(sys, "stderr", ClosedTerminal(writes))
    assert launch([both], plan([both], tmp_path), tmp_path, data_root=None) == {Status.BUDGET_REACHED: 2}


DIES = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", ["", DIES], ids=["first", "second"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_while_a_process_is_started_is_not_lost(number, moment, first, tmp_path):
    answer = watched_over(number, moment, first, write_config(tmp_path, "fixed"), "--out", tmp_path / "runs")
    assert answer.returncode == 128 + number
    told = answer.stderr.splitlines()
    assert told.pop() == "oho-bench: stopped; repeat the command to continue"
    assert told.pop() == ""
    died = [f"oho-bench: OUT/{'0' * 16}: crashed with SIGILL; the other runs continue"] if first else []
    assert told == died
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("is_told", [True, False])
def test_a_signal_to_the_process_that_works_alone_stops_the_command_and_is_told_once(is_told, tmp_path):
    """By that process, if it had come so far before a second signal ended it, else by the one that watches over it."""
    told = "os.write(int(sys.argv[1]), b'told stopped\\n'); " if is_told else ""
    dies = "signal.pthread_sigmask(signal.SIG_SETMASK, []); os.kill(os.getpid(), signal.SIGTERM)"
    answer = watched_over(0, "", f"import os, signal, sys; {told}{dies}", write_config(tmp_path, "fixed"))
    assert answer.returncode == 143
    assert answer.stderr == ("" if is_told else "\noho-bench: stopped; repeat the command to continue\n")


def test_a_signal_before_the_first_run_is_one_line(tmp_path):
    os.mkfifo(space := tmp_path / "never-written.yaml")
    config = write_config(tmp_path, "fixed")
    config.write_text(re.sub("space: .*", "space: never-written", config.read_text()))
    process = begun("run", config, "--out", tmp_path / "runs")
    with open(space, "w"):  # the process that works has opened it, too, and reads
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert told.split("\n") == ["", "oho-bench: stopped; repeat the command to continue", ""]


def rests(process):
    """Whether the process sleeps at five looks, one soon after another; at work it runs or waits for a processor."""
    states = []
    for _ in range(5):
        states.append(state_of(process))
        time.sleep(0.02)
    return states == ["S"] * 5


@pytest.mark.skipif(not can_be_seen(), reason="this system does not tell the states of processes")
def test_work_waits_while_its_parent_is_stopped_unless_a_signal_comes():
    with subprocess.Popen(["sleep", "60"]) as parent:
        stopper = Stopper(parent.pid)
        assert stopper.rest() == Stopper().rest() == Stopper(2**30).rest() == 0.0
        parent.send_signal(signal.SIGSTOP)
        until(lambda: state_of(parent.pid) == "T")
        threading.Timer(0.2, parent.send_signal, [signal.SIGCONT]).start()
        assert stopper.rest() >= 0.15
        parent.send_signal(signal.SIGSTOP)
        until(lambda: state_of(parent.pid) == "T")
        threading.Timer(0.1, setattr, [stopper, "asked", signal.SIGTERM]).start()
        assert 0.0 < stopper.rest() < 50
        parent.kill()


def in_a_terminal(*words):
    """A command with a terminal of its own, and the end of that terminal which a user has."""
    process, terminal = pty.fork()
    if process == 0:
        become(lambda: carry_out(words), 2)
    return process, terminal


def test_a_command_is_suspended_continued_and_stopped_in_order_when_its_terminal_closes(tmp_path):
    out = tmp_path / "runs"
    words = ["run", write_config(tmp_path, "oho-full"), "--out", out, "--set", "budget.steps=4000"]
    process, terminal = in_a_terminal(*words)
    run = within_a_run(out, records=4)
    (worker,) = children(process)
    for number in (signal.SIGSTOP, signal.SIGTSTP):
        os.kill(process, number)
        until(lambda: state_of(process) == "T")
        until(lambda: rests(worker))
        os.kill(process, signal.SIGCONT)
        until(lambda: state_of(worker) == "R")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    outcome = read_run(run).outcome
    assert outcome.status is Status.INTERRUPTED
    assert outcome.conditions["stopped_seconds"] > 0.1
    assert (run / CHECKPOINT).exists()


@pytest.mark.slow
def test_a_signal_to_every_process_of_a_job_stops_the_command_in_order(tmp_path):
    process, run, worker = within(tmp_path / "runs", write_config(tmp_path, "oho-full"), "--set", "budget.steps=4000")
    os.kill(worker, signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    told = process.communicate(timeout=20)[1]
    assert process.returncode in (143, 129)  # what was heard first
    assert read_run(run).outcome.status is Status.INTERRUPTED
    assert told.splitlines()[-1] == "oho-bench: stopped; repeat the command to continue"


LEFT = "oho-bench: left at once; repeat the command to continue from the last checkpoint"
LONG_STEP = """\
import hashlib
from bench.process.signals import Stopper
stopper = Stopper()
with stopper.listening(), stopper.patience():
    print("working", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)
    stopper.check()
"""
"""One call that takes minutes and, as PyTorch's do, returns for no signal and lets other threads work."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_within_a_long_step(number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    process.stdout.readline()
    for _ in range(2):
        time.sleep(0.3)
        process.send_signal(number)
    asked = time.monotonic()
    assert process.wait(60) == 128 + number
    assert time.monotonic() - asked < 2
    assert process.communicate()[1].splitlines()[-1] == LEFT


@pytest.mark.slow
def test_two_signals_leave_at_once_and_the_same_command_goes_on(tmp_path):
    config, out = write_config(tmp_path, "oho-global"), tmp_path / "runs"
    words = ["run", config, "--out", out, "--set", "budget.steps=300", "--set", "evaluations=30"]
    process = begun(*words)
    within_a_run(out, records=3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    assert process.wait(60) in (130, 143)
    assert time.monotonic() - asked < 2
    stopped = "oho-bench: stopped; repeat the command to continue"  # before the second signal came
    assert process.communicate()[1].splitlines()[-1] in (LEFT, stopped)
    assert command(*words).exit_code == 0
    assert "1 budget reached" in describe(out)
