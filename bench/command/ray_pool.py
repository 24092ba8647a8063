"""The nodes of a Ray cluster as a pool for `bench.command.cluster`: a thin layer over Ray, which is imported here alone.

Ray decides nothing: each run is one task, on the node that the scheduler chose, and Ray repeats none of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.command import node_task
from bench.command.remote_run import Result
from bench.command.scheduling import End, Node, Start
from bench.experiment.yaml_file import ConfigError
from bench.process.signals import tell
from bench.records.errors import ClusterError, one_line

ANSWER_SECONDS = 3.0
"""How long the head may take to accept a connection."""
CONNECT_SECONDS = 20.0
"""How long Ray may take to join the cluster."""
HEAD_SECONDS = 10.0
"""After so many seconds without its head a cluster is lost."""
LOOK_SECONDS = 1.0
"""The time between two looks at the head and the nodes."""
GRACE_SECONDS = 4.0
"""So long after that the process is ended if a call into Ray does not return, as calls without a head do for a minute."""


class RayPool:
    """A connection to a cluster; leave it with `close`."""

    def __init__(self, address: str):
        """Connects to `auto` or HOST:PORT.  Raises `ConfigError` within 25 seconds if that cannot be done."""
        self._ray = _imported()
        address, words = meant(address)
        if address != "auto":
            check_answers(address, words)
        _silence()
        with _elsewhere():
            _within(CONNECT_SECONDS, lambda: self._connect(address), words)
        self._head = self._ray.get_runtime_context().gcs_address
        self._work = self._ray.remote(node_task.work)
        self._tasks: dict[Any, str] = {}
        self._nodes: list[Node] = []
        self._looked, self._answered = -float("inf"), time.monotonic()
        self._left, self._is_told = threading.Event(), False
        threading.Thread(target=self._watch_head, daemon=True).start()
        self._common = {"version": version("oho-bench"), "code": node_task.hash_of_code(str(Path(__file__).parents[2]))}

    def _connect(self, address: str) -> None:
        self._ray.init(
            address=address, log_to_driver=False, logging_level="CRITICAL", namespace="oho-bench",
        )  # fmt: skip
        self._ray.cloudpickle.register_pickle_by_value(node_task)

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive.  Raises `ClusterError` if the head has not answered for some time."""
        now = time.monotonic()
        if now - self._answered > HEAD_SECONDS:
            self._is_told = True
            raise ClusterError(self._loss)
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._nodes = now, _named(self._ray.nodes()) if _answers(self._head) else []
        return self._nodes

    @property
    def _loss(self) -> str:
        what = "the head of the Ray cluster no longer answers; repeat the command when it is back, to continue"
        return f"{self._head}: {what}"

    def _watch_head(self) -> None:
        """Looks whether the head answers, in a thread of its own; at last, ends the process."""
        while not self._left.wait(LOOK_SECONDS):
            if _answers(self._head):
                self._answered = time.monotonic()
            elif time.monotonic() - self._answered > HEAD_SECONDS + GRACE_SECONDS:
                if not self._is_told:
                    tell(f"oho-bench: {self._loss}")
                os._exit(1)

    def start(self, start: Start, order: Mapping[str, Any]) -> None:
        """Starts a run on a node."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(start.node.id, soft=False)
        task = self._work.options(
            name=f"oho-bench {start.job.id}", num_cpus=start.share.cpus, num_gpus=start.share.gpus, max_retries=0,
            scheduling_strategy=strategy,
        )  # fmt: skip
        self._tasks[task.remote({**self._common, **order})] = start.job.id

    def wait(self, seconds: float) -> list[tuple[str, Result]]:
        """Returns what became of the runs that have ended on their node since the last call, after at most so long."""
        if not self._tasks:
            time.sleep(seconds)
            return []
        tasks = list(self._tasks)
        ready, _ = self._ray.wait(tasks, num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [(self._tasks.pop(task), self._result(task)) for task in ready]

    def stop(self) -> None:
        """Asks all runs to write a checkpoint and stop."""
        for task in self._tasks:
            self._ray.cancel(task)

    def close(self) -> None:
        """Leaves the cluster; what still runs there for this command is ended."""
        leaving = threading.Thread(target=self._ray.shutdown, daemon=True)
        leaving.start()
        leaving.join(GRACE_SECONDS / 2)
        if not self._is_told:
            self._left.set()

    def _result(self, task: Any) -> Result:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(task)
        except errors.TaskCancelledError:
            return Result(End.STOPPED)
        except errors.RayTaskError as error:
            return Result(End.NODE_REFUSED, f"cannot work: {_last_line(error)}")
        except errors.TaskUnschedulableError:
            return Result(End.NOT_BEGUN)
        except errors.RayError as error:
            self._looked = -float("inf")  # its node, or the head, may be gone
            return Result(End.DIED, type(error).__name__)
        return result if isinstance(result, Result) else Result(End.NODE_REFUSED, result)


def _imported() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError:
        raise ConfigError("--launcher ray: Ray is not installed; pip install 'oho-bench[cluster]'") from None
    return ray


def _silence() -> None:
    """Keeps this process's standard error for what Python writes: Ray's libraries write there whatever they are told."""
    sys.stderr.flush()
    own, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    stream = os.fdopen(own, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(stream)
    sys.stderr = stream


def meant(address: str) -> tuple[str, str]:
    """Returns the address that is meant and the words by which the user gave it: `auto` is $RAY_ADDRESS if that is set."""
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if address == "auto" and named not in ("", "auto"):
        return named, f"RAY_ADDRESS={named}"
    return address, f"--address {address}"


def check_answers(address: str, words: str) -> None:
    """Raises `ConfigError` unless something answers at HOST:PORT, which the user gave by these words."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and "/" not in host and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError(f"{words}: auto or HOST:PORT is expected, such as 10.0.0.1:6379")
    if not _answers(address):
        raise ConfigError(f"{words}: nothing answers there; start a head, `ray start --head --port={port}`")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _within(seconds: float, connect: Callable[[], None], words: str) -> None:
    """Connects, and raises `ConfigError` if that fails or takes too long."""
    failures: list[BaseException] = []

    def connecting() -> None:
        try:
            connect()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=connecting, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        what = "is it the port of a head, does a node run on this machine, and is its token the cluster's?"
        raise ConfigError(f"{words}: no Ray cluster has answered within {seconds:g} seconds; {what}")
    if failures:
        raise ConfigError(f"{words}: cannot be joined ({_last_line(failures[0])})")


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return one_line(lines[-1].strip())


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Works in an empty folder: workers look for modules where the driver was, before they look at their own."""
    before = os.getcwd()  # noqa: PTH109
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _named(found: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Returns the nodes that are alive, by names that differ."""
    alive = [node for node in found if node["Alive"]]
    names = Counter(node["NodeName"] for node in alive)
    return [
        Node(
            node["NodeID"],
            name if names[name := node["NodeName"]] == 1 else f"{name}/{node['NodeID'][:6]}",
            node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0),
        )
        for node in alive
    ]  # fmt: skip
