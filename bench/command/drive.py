"""Has the jobs of a scheduler done by a pool of nodes: gives them out, hears what became of them, and stops on a signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bench.command.remote_run import Result
from bench.command.scheduling import End, Job, Node, Scheduler, Start, Verdict
from bench.process.signals import Stopper
from bench.records import Outcome
from bench.records.errors import ClusterError

POLL_SECONDS = 0.25
"""The longest time between two looks at signals."""
IDLE_SECONDS = 30.0
"""How long the command waits for a node that can make a run before it gives up."""
STOP_SECONDS = 60.0
"""How long it waits for the runs to write their checkpoints after a signal."""


class Pool(Protocol):
    """Nodes that make jobs, each with its runs.  `bench.command.ray_pool` is one; tests simulate another."""

    def nodes(self) -> list[Node]:
        """Returns the nodes that are there now.  Raises `ClusterError` if the pool is lost."""
        ...

    def start(self, start: Start, order: Mapping[str, Any]) -> None:
        """Starts a job on a node."""
        ...

    def wait(self, seconds: float) -> list[tuple[str, Result]]:
        """Returns the ids of jobs that have ended on their node since the last call, after at most so long."""
        ...

    def stop(self) -> None:
        """Asks all runs to write a checkpoint and stop."""
        ...

    def close(self) -> None:
        """Leaves the pool."""
        ...


class Watcher(Protocol):
    """What is told of the runs' progress."""

    def order(self, job: Job) -> Mapping[str, Any]:
        """Returns what a node must be given to make the job."""
        ...

    def started(self, start: Start) -> None:
        """Is called when a job begins on a node."""
        ...

    def ended(self, job: Job) -> Mapping[str, Outcome]:
        """Returns the outcomes of those of a job's runs that have ended."""
        ...

    def saved(self, job: Job) -> float:
        """Returns how much of a job's first run has been saved."""
        ...

    def heard(self, start: Start, result: Result, verdict: Verdict) -> None:
        """Is called with what became of a job on its node, and what follows."""
        ...

    def look(self, scheduler: Scheduler, nodes: Sequence[Node]) -> None:
        """Is called some times a second."""
        ...


def drive(scheduler: Scheduler, pool: Pool, watcher: Watcher, *, now: Callable[[], float], stopper: Stopper) -> None:
    """Has all jobs done, each once.

    Raises:
        ClusterError: if no node can make the jobs that are left.
        Interrupted: after a signal, when the runs have been stopped.
    """
    idle_since: float | None = None
    while not scheduler.is_done:
        if stopper.asked is not None:
            _stop(scheduler, pool, watcher, now)
            stopper.check()
        nodes = pool.nodes()
        for start in scheduler.starts(nodes, now()):
            pool.start(start, watcher.order(start.job))
            watcher.started(start)
        if scheduler.running or (nodes and scheduler.can_start(nodes)):
            idle_since = None
        else:
            idle_since = now() if idle_since is None else idle_since
            if now() - idle_since >= (0.0 if scheduler.refusals() and nodes else IDLE_SECONDS):
                raise ClusterError(_why_idle(scheduler, nodes))
        watcher.look(scheduler, nodes)
        _hear(scheduler, pool, watcher, now)


def _hear(scheduler: Scheduler, pool: Pool, watcher: Watcher, now: Callable[[], float]) -> None:
    for identity, result in pool.wait(POLL_SECONDS):
        start = scheduler.running[identity]
        if result.end is End.DIED and (ended := watcher.ended(start.job)):  # before the process could answer
            end = End.MADE if len(ended) == len(start.job.runs) else End.DIED
            result = replace(result, end=end, outcomes=ended)
        saved = watcher.saved(start.job) if result.end is End.DIED else 0.0
        reason = f"{start.node.name} {result.reason}"
        is_known = result.end in (End.REFUSED, End.NODE_REFUSED) and scheduler.has_refused(identity)
        verdict = scheduler.heard(identity, result.end, now=now(), reason=reason, progress=saved, made=result.outcomes)
        watcher.heard(start, Result(End.NOT_BEGUN) if is_known else result, verdict)  # a refusal is told once


def _stop(scheduler: Scheduler, pool: Pool, watcher: Watcher, now: Callable[[], float]) -> None:
    pool.stop()
    begun = now()
    while scheduler.running and now() - begun < STOP_SECONDS:
        _hear(scheduler, pool, watcher, now)


def _why_idle(scheduler: Scheduler, nodes: Sequence[Node]) -> str:
    left = "1 run is left" if scheduler.queued == 1 else f"{scheduler.queued} runs are left"
    reasons = scheduler.refusals() or [nodes_in_words(nodes)]
    return f"{left} that no node can make: {'; '.join(reasons)}; repeat the command to continue"


def nodes_in_words(nodes: Sequence[Node]) -> str:
    """Returns what the nodes have, as an error says it."""
    parts = [f"{node.name}: {node.cpus:g} processors, {node.gpus:g} GPUs" for node in nodes[:4]]
    more = [f"{len(nodes) - 4} more"] if len(nodes) > 4 else []
    return ", ".join(["the cluster has no node" if not nodes else "; ".join(parts), *more])
