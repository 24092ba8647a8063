"""Commands as processes of their own, for tests of what kills, stops and outlives them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from forks import START, Fork, carry_out, start_worker

from bench.command.handover import Journal
from bench.command.supervisor import supervise


def children(process):
    """The children that the process has now."""
    path = Path(f"/proc/{process}/task/{process}/children")
    if not path.exists():
        pytest.skip("this system does not tell the children of a process")
    return [int(word) for word in path.read_text().split()]


def state_of(process):
    """R, S, T (stopped), Z or, where there is none, nothing."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def records_in(run):
    path = run / "records.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def until(condition, seconds=30):
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return found


def begun(*words):
    """A command, while it works."""
    return Fork(lambda: carry_out(words), is_piped=True)


def within_a_run(out, *, records):
    """The first run's folder, once it has so many records."""

    def found():
        return [path.parent for path in out.glob("*/records.jsonl") if path.read_text().count("\n") >= records]

    return until(found, seconds=60)[0]


def within(out, *words, records=4):
    """A command within its first run, that run's folder, and the process that runs it."""
    process = begun("run", "--out", out, *words)
    run = within_a_run(out, records=records)
    (worker,) = children(process.pid)
    return process, run, worker


def watched_over(number, moment, first, *words):
    """A command that gets a signal while it starts the process that works; `first` is another one's program, before it."""
    started = []

    def start(command, **options):
        started.append(command)
        (descriptor,) = options["pass_fds"]
        if len(started) == 1 and first:
            Journal(descriptor).note("in" if "SIGILL" in first else "tried", "0" * 16, "never")
            return START([sys.executable, "-c", first, str(descriptor)], **options)
        if moment == "before":
            os.kill(os.getpid(), number)
        if moment == "refused":
            raise OSError(11, "Resource temporarily unavailable")
        child = start_worker(command, **options)
        if moment == "after":
            os.kill(os.getpid(), number)
        return child

    def program():
        subprocess.Popen = start
        sys.exit(supervise(["run", *map(str, words)], Path("OUT")))

    process = Fork(program, is_piped=True)
    _, told = process.communicate(timeout=60)
    return SimpleNamespace(returncode=process.returncode, stderr=told)
