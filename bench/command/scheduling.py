"""Decides which node makes which run.  Knows no clock, no network and no Ray: the pool of nodes is given to it.

A timed run has its device to itself: a whole GPU, or all processors of a node.  Runs with a budget in steps or epochs may
share, or be trained together as a batch.  A run ends exactly once: it is on one node at a time, and one that is on no node
any more starts anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from bench.records.schema import TIMED

MOST_DEATHS = 3
"""A run has failed if so many of its processes in succession have died without progress."""
RETRY_SECONDS = 2.0
"""The time until a run that another runner is working on, or whose node has left, is tried again."""
TAKEN_SECONDS = 30.0
"""After so many seconds it is left to the other runner: those of a driver that was killed are gone sooner."""
ROUNDING = 1e-6


class Node(NamedTuple):
    """A node of the pool and what it has in all."""

    id: str
    name: str
    cpus: float
    gpus: float


class Share(NamedTuple):
    """The processors and GPUs of a node that a run has."""

    cpus: float
    gpus: float


class Demand(NamedTuple):
    """What runs of one kind ask of a node.  `cpus` is None if they ask for all processors.

    `needs` stands for the data and plug-ins that a node must have.
    """

    on_gpu: bool
    timed: bool
    cpus: float | None
    per_gpu: int
    needs: str

    @property
    def is_alone(self) -> bool:
        """Whether a run has all processors of its node: a timed one on the CPU, or one that uses all cores."""
        return not self.on_gpu and (self.timed or self.cpus is None)

    def share(self, node: Node) -> Share | None:
        """Returns a run's share of a node, or None if the node has too little."""
        gpus = 0.0 if not self.on_gpu else 1.0 if self.timed else 1 / self.per_gpu
        cpus = node.cpus if self.is_alone else self.cpus if self.cpus is not None else 1.0
        fits = node.cpus >= max(cpus, self.cpus or 0.0) - ROUNDING and node.gpus >= gpus - ROUNDING
        return Share(cpus, gpus) if fits and cpus + gpus > 0 else None

    def places(self, nodes: Sequence[Node]) -> int:
        """Returns how many such runs the nodes can make at the same time."""
        shares = [(node, share) for node in nodes if (share := self.share(node))]
        return sum(int(min(_times(node.cpus, share.cpus), _times(node.gpus, share.gpus))) for node, share in shares)

    def __str__(self) -> str:
        """Returns what a node must have, in words."""
        parts = ["a GPU"] if self.on_gpu else []
        parts += [f"{self.cpus:g} processors"] if self.cpus else [] if self.on_gpu else ["a processor"]
        return " and ".join(parts)


def demand_of(spec: Mapping[str, Any], *, per_gpu: int, cpus: float | None, needs: str) -> Demand:
    """Returns what a run asks for; without `cpus`, a run on the CPU asks for as many processors as it has threads."""
    on_gpu = spec["device"] != "cpu"
    processors = cpus or (None if on_gpu else spec["threads"])
    return Demand(on_gpu, spec["budget"]["unit"] in TIMED, processors, per_gpu, needs)


class End(Enum):
    """What became of a run on a node."""

    MADE = "the run has an outcome"
    TAKEN = "another runner is working on it"
    REFUSED = "the node lacks what the run needs"
    NODE_REFUSED = "the node cannot make any run"
    DIED = "the process or its node died"
    NOT_BEGUN = "the node left before the run began"
    STOPPED = "it was asked to stop"


class Verdict(Enum):
    """What follows from that."""

    ENDED = "nothing more is to be done"
    AGAIN = "it will start again"
    APART = "runs that a batch has left will be made alone"
    FAILED = "its processes died too often"
    LEFT = "another runner has it"


@dataclass
class Job:
    """A run to be made, and what happened to it so far.  With runs `beside` it, it is a batch, which one process makes."""

    id: str
    demand: Demand
    beside: tuple[str, ...] = ()
    deaths: int = 0
    progress: float = 0.0
    ready: float = 0.0
    taken_since: float | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of its runs."""
        return self.id, *self.beside

    def died(self, progress: float) -> bool:
        """Notes that its process died; `progress` is how much was saved.  Returns whether that was once too often."""
        self.deaths = 1 if progress > self.progress else self.deaths + 1
        self.progress = max(progress, self.progress)
        return self.deaths >= MOST_DEATHS


class Start(NamedTuple):
    """A job that starts on a node with a share of it."""

    job: Job
    node: Node
    share: Share


@dataclass
class Scheduler:
    """The jobs that wait and those at work."""

    running: dict[str, Start] = field(default_factory=dict)
    _waiting: dict[Demand, deque[Job]] = field(default_factory=dict)
    _delayed: list[Job] = field(default_factory=list)
    _refused: dict[tuple[str, str | None], str] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> Scheduler:
        """Returns a scheduler that has these jobs to do, in this order."""
        scheduler = cls()
        for job in jobs:
            scheduler._queue(job.demand).append(job)
        return scheduler

    @property
    def queued(self) -> int:
        """The number of runs that are on no node."""
        return sum(1 + len(job.beside) for queue in (self._delayed, *self._waiting.values()) for job in queue)

    @property
    def is_done(self) -> bool:
        """Whether there is no job any more."""
        return not self.running and not self.queued

    def starts(self, nodes: Sequence[Node], now: float) -> list[Start]:
        """Returns the jobs that start now, each on a node with room for it; they are running from here on."""
        for job in [job for job in self._delayed if job.ready <= now]:
            self._delayed.remove(job)
            self._queue(job.demand).append(job)
        room = {node.id: [node.cpus, node.gpus] for node in nodes}
        for start in self.running.values():
            if start.node.id in room:
                room[start.node.id][0] -= start.share.cpus
                room[start.node.id][1] -= start.share.gpus
        open_nodes = [node for node in nodes if max(room[node.id]) > ROUNDING]
        started: list[Start] = []
        for demand, queue in self._waiting.items():
            shares = {
                node: share
                for node in (open_nodes if queue else ())
                if not self._refusal(node, demand) and (share := demand.share(node))
            }
            while queue and (free := [node for node, share in shares.items() if _has_room(room[node.id], share)]):
                node = max(free, key=lambda node: room[node.id])  # the emptiest
                room[node.id][0] -= shares[node].cpus
                room[node.id][1] -= shares[node].gpus
                started.append(Start(queue.popleft(), node, shares[node]))
        self.running |= {start.job.id: start for start in started}
        return started

    def heard(self, identity: str, end: End, *, now: float, reason: str = "", progress: float = 0.0,
              made: Collection[str] = ()) -> Verdict:  # fmt: skip
        """Notes what became of a running job and returns what follows.

        `reason` says why a node refused; `progress` is how much of a job whose process died was saved; `made` has the runs
        that have ended.  Those that a batch leaves are made alone.
        """
        job, node, _ = self.running.pop(identity)
        if job.beside and end in (End.MADE, End.DIED):
            left = [run for run in job.runs if run not in made]
            self._queue(job.demand).extendleft(Job(run, job.demand) for run in reversed(left))
            return Verdict.APART if left else Verdict.ENDED
        if end is End.MADE:
            return Verdict.ENDED
        if end is End.DIED and job.died(progress):
            return Verdict.FAILED
        if end is End.TAKEN:
            job.taken_since = now if job.taken_since is None else job.taken_since
            if now - job.taken_since >= TAKEN_SECONDS:
                return Verdict.LEFT
        if end in (End.TAKEN, End.NOT_BEGUN):
            job.ready = now + RETRY_SECONDS
            self._delayed.append(job)
            return Verdict.AGAIN
        if end in (End.REFUSED, End.NODE_REFUSED):
            self._refused[node.id, None if end is End.NODE_REFUSED else job.demand.needs] = reason
        job.taken_since = None
        self._queue(job.demand).appendleft(job)
        return Verdict.AGAIN

    def has_refused(self, identity: str) -> bool:
        """Returns whether the node of a running job has already refused such a job."""
        job, node, _ = self.running[identity]
        return bool(self._refusal(node, job.demand))

    def impossible(self, nodes: Sequence[Node]) -> Demand | None:
        """Returns what some waiting job needs and no node has, or None."""
        for demand, queue in self._waiting.items():
            if queue and not any(demand.share(node) for node in nodes):
                return demand
        return None

    def can_start(self, nodes: Sequence[Node]) -> bool:
        """Returns whether a node could make a job that waits, if it had nothing else to do."""
        return bool(self._delayed) or any(
            queue and demand.share(node) and not self._refusal(node, demand)
            for demand, queue in self._waiting.items()
            for node in nodes
        )

    def refusals(self) -> list[str]:
        """Returns why nodes have refused, each reason once."""
        return list(dict.fromkeys(self._refused.values()))

    def _queue(self, demand: Demand) -> deque[Job]:
        return self._waiting.setdefault(demand, deque())

    def _refusal(self, node: Node, demand: Demand) -> str | None:
        return self._refused.get((node.id, None)) or self._refused.get((node.id, demand.needs))


def _times(there: float, asked: float) -> float:
    return (there + ROUNDING) // asked if asked else float("inf")


def _has_room(room: Sequence[float], share: Share) -> bool:
    return room[0] >= share.cpus - ROUNDING and room[1] >= share.gpus - ROUNDING
