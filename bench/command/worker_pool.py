"""Processes on this machine that make runs side by side: the pool of `bench.command.side_by_side`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.command.remote_run import Result
from bench.command.scheduling import End, Node, Start
from bench.command.supervisor import ROOT, death_by
from bench.process.share import machine_processors
from bench.process.signals import held
from bench.process.surroundings import neutral

WORKER = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from bench.command.worker import main; main(*map(int, sys.argv[1:]))"
)
LEAVE_SECONDS = 10.0
"""How long a worker may take to end after its pipe was closed: trackers finish what they send."""


def begun(words: Sequence[int]) -> subprocess.Popen:
    """Returns a new process that works as `bench.command.worker.main` does with these words; the first is a descriptor."""
    command = [sys.executable, "-P", "-c", WORKER, ROOT, *map(str, words)]
    return subprocess.Popen(
        command, env=neutral(os.environ), start_new_session=True, pass_fds=words[:1], stdin=subprocess.DEVNULL
    )  # fmt: skip


class _Worker:
    """A process that makes runs, and the pipe to it; `job` is what it works on."""

    def __init__(self, watched: int, workers: int):
        ours, theirs = multiprocessing.Pipe()
        with held():  # until the worker is ready for signals
            self.process = begun([theirs.fileno(), os.getpid(), watched, workers])
        theirs.close()
        self.pipe: Connection = ours
        self.job = ""

    def death(self) -> str:
        """Waits for the process, whose pipe has been closed, and returns in words how it died."""
        self.pipe.close()
        code = self.process.wait()
        return death_by(-code) if code < 0 else f"ended with exit code {code}"


class WorkerPool:
    """So many workers, each started when there is work for it, and replaced when it has died."""

    def __init__(self, size: int, watched: int):
        """Prepares the pool; `watched` is the process that a user stops with Ctrl-Z."""
        self._size, self._watched = size, watched
        self._workers: list[_Worker] = []
        self._is_stopping = False

    def nodes(self) -> list[Node]:
        """Returns this machine, with its processors."""
        return [Node("here", "this machine", float(machine_processors()), 0.0)]

    def start(self, start: Start, order: Mapping[str, Any]) -> None:
        """Gives the work to a worker that has none."""
        for worker in [each for each in self._workers if not each.job]:
            try:
                worker.pipe.send(dict(order))
            except OSError:  # it died while it was idle
                self._buried(worker)
                continue
            worker.job = start.job.id
            return
        self._workers.append(worker := _Worker(self._watched, self._size))
        worker.job = start.job.id
        with contextlib.suppress(OSError):  # it died at once; `wait` finds its pipe closed
            worker.pipe.send(dict(order))

    def wait(self, seconds: float) -> list[tuple[str, Result]]:
        """Returns what became of the work that has ended since the last call, after at most so long."""
        pipes = {worker.pipe: worker for worker in self._workers}
        found = []
        for pipe in wait(list(pipes), timeout=seconds):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                result, leaves = worker.pipe.recv()
                if leaves:  # which may take long with a device that does not answer
                    self._workers.remove(worker)
                    worker.pipe.close()
            except (EOFError, OSError):
                result = Result(End.STOPPED if self._is_stopping else End.DIED, self._buried(worker))
            if worker.job:
                found.append((worker.job, result))
            worker.job = ""
        return found

    def _buried(self, worker: _Worker) -> str:
        """Takes a worker whose pipe is closed out of the pool, and returns in words how it died."""
        self._workers.remove(worker)
        return worker.death()

    def stop(self) -> None:
        """Asks all workers to write a checkpoint and stop."""
        self._is_stopping = True
        for worker in self._workers:
            if worker.job:
                worker.process.terminate()

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.pipe.close()
        deadline = time.monotonic() + LEAVE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()
