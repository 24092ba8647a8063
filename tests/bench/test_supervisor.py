"""A process that dies within a run costs that run, and no other."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from helpers import ROOT, experiment, oho_bench, run_one, within_a_run, write_config

from baselines.training import Training
from bench.claim import owner
from bench.launch import plan
from bench.records import Status, read_run
from bench.saving import CHECKPOINT
from bench.status import describe

CONTROLLERS = (
    ("/sys/fs/cgroup/memory", {"memory.limit_in_bytes": "{}", "memory.swappiness": "0"}),
    ("/sys/fs/cgroup", {"memory.max": "{}", "memory.swap.max": "0"}),
)
"""Where Linux's versions 1 and 2 of control groups have the limits of memory."""


@contextlib.contextmanager
def memory_cap(size):
    """A control group of so many bytes, as the function by which a process enters it."""
    for place, limits in CONTROLLERS:
        group = Path(place) / f"oho-bench-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                for name, value in limits.items():
                    (group / name).write_text(value.format(size))
                yield lambda group=group: (group / "cgroup.procs").write_text(str(os.getpid()))
                return
            finally:
                group.rmdir()
    pytest.skip("a limit of memory is not permitted here")


def test_a_run_that_the_system_kills_for_memory_has_failed_and_the_others_go_on(tmp_path):
    """A layer of 1.6 GB beside three small networks, in 2 GiB."""
    out = tmp_path / "runs"
    small, large = write_config(tmp_path, "fixed", "adam", "step"), tmp_path / "large.yaml"
    text = small.read_text().partition("  - {name: adam")[0].replace("experiment: small", "experiment: large")
    large.write_text(text.replace("selection_epochs: 1", "selection_epochs: 1, width: 20_000"))
    with memory_cap(2 << 30) as enter:
        answer = oho_bench("run", large, small, "--out", out, preexec_fn=enter)
    assert answer.returncode == 1, answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if "SIGKILL" in line]
    reason = "killed by SIGKILL, as systems do when memory is short"
    assert re.fullmatch(rf"oho-bench: {out}/[0-9a-f]{{16}}: {reason}; the other runs go on", line)
    assert answer.stderr.splitlines()[-1] == f"oho-bench: 1 run failed; `oho-bench status {out}` lists them"
    assert "3 budget reached" in describe(out)
    assert f": {reason}" in describe(out)


def started(config, out, *options):
    """A command that is within its first run, and the process that runs it."""
    command = [sys.executable, "-m", "bench.cli", "run", config, "--out", out, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    run = within_a_run(out, records=4)
    return process, run, owner(run)


def test_a_run_in_which_the_process_crashes_has_failed_and_the_others_go_on(tmp_path):
    config, out = write_config(tmp_path, "oho-full", "fixed"), tmp_path / "runs"
    process, run, worker = started(config, out, "--set", "budget.steps=300")
    assert worker != process.pid
    os.kill(worker, signal.SIGSEGV)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"oho-bench: {run}: crashed with SIGSEGV; the other runs go on" in told
    assert "Traceback" not in told
    dead = read_run(run)
    assert dead.outcome.status is Status.FAILED
    assert dead.outcome.steps == dead.records[-1]["step"]
    assert "1 budget reached, 1 failed" in describe(out)
    again = oho_bench("run", config, "--out", out, "--set", "budget.steps=300")
    assert again.returncode == 0, again.stderr
    assert "2 budget reached" in describe(out)


def test_what_has_failed_is_tried_again_by_the_next_command_only(tmp_path, monkeypatch):
    def broken(method, state, **options):
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(Training, "advance", broken)
    one = experiment(tmp_path, "fixed")
    outcome = run_one(one.specs[0], tmp_path)
    assert outcome.status is Status.FAILED
    ended = datetime.fromisoformat(outcome.environment["finished"])
    for seconds, is_done in ((-1, True), (1, False)):
        since = (ended + timedelta(seconds=seconds)).isoformat(timespec="seconds")
        assert [item.is_done for item in plan([one], tmp_path, since=since)] == [is_done]
    assert not plan([one], tmp_path)[0].is_done


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.5), (signal.SIGTERM, 0.0)])
def test_a_signal_before_the_first_run_is_one_line(number, seconds, tmp_path):
    command = [sys.executable, "-m", "bench.cli", "run", write_config(tmp_path, "fixed"), "--out", tmp_path / "runs"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT)
    while not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text():
        time.sleep(0.01)
    time.sleep(0.05 + seconds)  # the child is at its imports
    process.send_signal(number)
    told = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + number
    assert told.split("\n") == ["", "oho-bench: stopped; the same command goes on where it was", ""]


def test_a_terminal_that_closes_stops_in_order(tmp_path):
    command = [sys.executable, "-m", "bench.cli", "run", write_config(tmp_path, "oho-full"), "--out", tmp_path / "runs"]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [*map(str, command), "--set", "budget.steps=4000"])
    run = within_a_run(tmp_path / "runs", records=4)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert read_run(run).outcome.status is Status.INTERRUPTED
    assert (run / CHECKPOINT).exists()


def test_a_command_that_is_killed_leaves_no_process_behind(tmp_path):
    config, out = write_config(tmp_path, "oho-full"), tmp_path / "runs"
    process, run, worker = started(config, out, "--set", "budget.steps=4000")
    process.kill()
    process.wait()
    process.stderr.close()
    began = time.monotonic()
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() - began < 5
        time.sleep(0.05)
    assert read_run(run).outcome is None
