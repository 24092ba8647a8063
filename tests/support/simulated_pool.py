"""A cluster on a fake clock: workers that die at random, nodes that leave and join, runs that go on unseen for a while.

And two nodes that are this process, whose runs are real."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from bench.command.remote_run import Result, make_remotely
from bench.command.scheduling import End, Node


@dataclass
class SimulatedPool:
    """`deaths` is the probability that a process dies, `unseen` that one which is thought dead still holds its claim."""

    size: int
    seed: int = 0
    deaths: float = 0.0
    unseen: float = 0.0
    leaving: float = 0.0
    cpus: float = 1.0
    clock: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    saved: dict[str, float] = field(default_factory=dict)
    side_by_side: int = 0

    def __post_init__(self):
        self.chance = random.Random(self.seed)
        self.present = {str(i): Node(str(i), f"node-{i}", self.cpus, 0.0) for i in range(self.size)}
        self.events, self.claims, self.at_work, self.joined = [], {}, {}, self.size

    def now(self):
        return self.clock

    def nodes(self):
        if self.chance.random() < self.leaving:
            gone = self.chance.choice(list(self.present))
            del self.present[gone]
            self.present[str(self.joined)] = Node(str(self.joined), f"node-{self.joined}", self.cpus, 0.0)
            self.joined += 1
        return list(self.present.values())

    def start(self, start, order):
        assert start.node.id in self.present
        name = start.job.id
        self.at_work[name] = start
        shares = [each.share.cpus for each in self.at_work.values() if each.node == start.node]
        self.side_by_side = max(self.side_by_side, len(shares))
        assert sum(shares) <= self.cpus + 1e-6
        self.later(self.chance.uniform(1, 10), name)

    def later(self, seconds, name):
        heapq.heappush(self.events, (self.clock + seconds, name))

    def wait(self, seconds):
        if not self.events or self.events[0][0] > self.clock + seconds:
            self.clock += seconds
            return []
        self.clock, name = heapq.heappop(self.events)
        start = self.at_work.pop(name)
        end = self.end_of(name, start)
        made = start.job.runs if end is End.MADE else ()
        for run in made:
            self.ended[run] = self.ended.get(run, 0) + 1
        return [(name, Result(end, outcomes=dict.fromkeys(made)))]

    def end_of(self, name, start):
        if self.claims.get(name, 0.0) > self.clock:
            return End.TAKEN
        if start.node.id not in self.present and self.chance.random() < 0.5:
            return End.NOT_BEGUN
        if start.node.id not in self.present or self.chance.random() < self.deaths:
            self.saved[name] = self.saved.get(name, 0.0) + 1.0
            if self.chance.random() < self.unseen:
                self.claims[name] = self.clock + self.chance.uniform(0, 20)
            return End.DIED
        return End.MADE

    def stop(self):
        self.events = [(self.clock, name) for name in self.at_work]
        self.end_of = lambda name, start: End.STOPPED

    def close(self):
        pass


class Silent:
    """A watcher that counts what it is told."""

    def __init__(self, pool):
        self.pool, self.verdicts, self.told = pool, {}, []

    def order(self, job):
        return {}

    def started(self, start):
        pass

    def ended(self, job):
        return {}

    def saved(self, job):
        return self.pool.saved.get(job.id, 0.0)

    def heard(self, start, result, verdict):
        self.verdicts.setdefault(start.job.id, []).append(verdict)
        self.told.append((start, result.end, verdict))

    def look(self, scheduler, nodes):
        pass


class NodesHere:
    """Two nodes whose runs are made one after another in this process."""

    def __init__(self, instead=lambda order: None):
        self.instead, self.queue = instead, deque()

    def nodes(self):
        return [Node("1", "one", 1.0, 0.0), Node("2", "two", 1.0, 0.0)]

    def start(self, start, order):
        self.queue.append((start, order))

    def wait(self, seconds):
        if not self.queue:
            return []
        start, order = self.queue.popleft()
        return [(start.job.id, self.instead(start) or make_remotely(order))]

    def stop(self):
        pass

    def close(self):
        pass
