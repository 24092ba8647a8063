"""`oho-bench run` works in a child process: where that is killed or crashes, its run has failed, and the others go on.

A system short of memory kills the process that asks for most, and no process can answer that for itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

from bench.claim import claimed, owner
from bench.signals import WATCHED, hold_signals, tell

SET_PARENT_DEATH_SIGNAL = 1
"""An option of Linux's `prctl`."""


def supervise(out: Path) -> int:
    """Carries out this process's command line in a child, and in another one after each death; returns the exit code."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    killed: dict[str, int] = {}
    while True:
        dead = [f"--killed={name}:{number}" for name, number in killed.items()]
        again = [f"--since={since}", *dead] if dead else []
        asked: list[int] = []
        with _child([sys.argv[1], "--in-process", *again, *sys.argv[2:]], asked) as child:
            code = child.wait()
        if code >= 0:
            return code
        if asked:
            tell("\noho-bench: stopped; the same command goes on where it was")
            return 128 + asked[0]
        runs = _left_by(child.pid, out)
        if not runs or any(run.name in killed for run in runs):  # a second time
            tell(f"oho-bench: {death_by(-code)} outside of a run; give the same command again to go on")
            return 128 - code
        for run in runs:
            tell(f"oho-bench: {run}: {death_by(-code)}; the other runs go on")
            killed[run.name] = -code


def death_by(number: int) -> str:
    """What a signal that a process died of may mean."""
    name = signal.Signals(number).name
    return f"killed by {name}, as systems do when memory is short" if number == signal.SIGKILL else f"crashed with {name}"


@contextmanager
def _child(arguments: list[str], asked: list[int]) -> Iterator[subprocess.Popen]:
    """The child gets the signals that come to us, and no others: a terminal sends Ctrl-C to whole groups of processes.

    They are added to `asked`.
    """
    command = [sys.executable, "-P", "-m", "bench.cli", *arguments]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=partial(_prepare, os.getpid()))

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        child.send_signal(number)

    def pause(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        child.send_signal(signal.SIGCONT)  # when we have been continued

    handlers = {**dict.fromkeys(WATCHED, forward), signal.SIGTSTP: pause}
    heard = {number: handler for number, handler in handlers.items() if signal.getsignal(number) is not signal.SIG_IGN}
    previous = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        yield child
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _prepare(parent: int) -> None:
    """In the child.  Elsewhere than on Linux, one whose parent was killed works on, and keeps its claims."""
    hold_signals()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def _left_by(process: int, out: Path) -> list[Path]:
    """The runs that a dead process had claimed."""
    runs = []
    for path in out.glob("*/spec.json"):
        if owner(path.parent) == process:
            with claimed(path.parent) as is_free:
                runs += [path.parent] if is_free else []
    return runs
