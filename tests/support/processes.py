"""Commands as processes of their own, for tests of what kills, stops and outlives them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT


def children(process):
    """Those that the process has now."""
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
    command = [sys.executable, "-m", "bench.cli", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT)


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


WATCHED_OVER = """\
import os, signal, subprocess, sys
from pathlib import Path
import bench.command.supervisor
from bench.command.handover import Journal
from bench.process.signals import tell

number, moment, first = int(sys.argv[1]), sys.argv[2], sys.argv[3]
real, count = subprocess.Popen, 0

def popen(command, **options):
    global count
    count += 1
    if count == 1 and first:
        Journal(options["pass_fds"][0]).note("in" if "SIGILL" in first else "tried", "0" * 16, "never")
        return real([sys.executable, "-c", first, str(options["pass_fds"][0])], **options)
    if moment == "before":
        os.kill(os.getpid(), number)
    if moment == "refused":
        raise OSError(11, "Resource temporarily unavailable")
    child = real(command, **options)
    if moment == "after":
        os.kill(os.getpid(), number)
    return child

subprocess.Popen = popen
sys.exit(bench.command.supervisor.supervise(sys.argv[4:], Path("OUT")))
"""


def watched_over(number, moment, first, *words):
    """A command that gets a signal while it starts the process that works; `first` is another one's program, before it."""
    given = [str(int(number)), moment, first, "run", *map(str, words)]
    return subprocess.run(
        [sys.executable, "-c", WATCHED_OVER, *given], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
