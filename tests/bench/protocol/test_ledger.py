"""The ledger: every second in one account, on a processor and on a device with a queue."""

import random
import re

import pytest
from helpers import Ticks, experiment, run_one

from bench.protocol.ledger import Ledger
from bench.records import read_run, run_id


class Clock:
    """Moves only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Queue:
    """A device that is asked for work at once and does it later, while the host goes on or waits."""

    def __init__(self, clock):
        self.clock, self.done_at, self.waits = clock, 0.0, 0

    def work(self, seconds):
        self.done_at = max(self.done_at, self.clock.now) + seconds

    def synchronise(self):
        self.waits += 1
        self.clock.now = max(self.clock.now, self.done_at)

    def mark(self):
        return max(self.done_at, self.clock.now)

    def between(self, first, second):
        return second - first


def booked(ledger):
    return {name: seconds for name, seconds in ledger.seconds.items() if seconds}


def test_nested_accounts_are_booked_once():
    clock = Clock()
    ledger = Ledger(now=clock)
    clock.now = 1.0
    with ledger.account("train"):
        clock.now = 3.0
        with ledger.account("selection"):
            clock.now = 3.5
        clock.now = 4.0
    clock.now = 6.0
    assert ledger.wall() == 6.0
    assert ledger.counted() == 3.0
    assert booked(ledger) == {"setup": 3.0, "train": 2.5, "selection": 0.5}


def test_queued_work_is_booked_where_it_was_asked_for():
    clock = Clock()
    queue = Queue(clock)
    ledger = Ledger(queue, clock)
    ledger.switch("runner")
    with ledger.account("train"):
        queue.work(2.0)
    with ledger.account("evaluation"):
        queue.work(1.0)
    assert ledger.wall() == 3.0
    assert booked(ledger) == {"train": 2.0, "evaluation": 1.0}


def test_counted_accounts_share_the_time_as_the_device_says_without_a_wait_between_them():
    clock = Clock()
    queue = Queue(clock)
    ledger = Ledger(queue, clock)
    ledger.switch("runner")
    before = queue.waits
    with ledger.account("train"):
        for _ in range(4):
            ledger.switch("train")
            queue.work(1.0)
            ledger.switch("hypergradient")
            queue.work(3.0)
            ledger.switch("train")
    assert queue.waits == before + 2
    assert booked(ledger) == pytest.approx({"train": 4.0, "hypergradient": 12.0})
    assert ledger.counted() == pytest.approx(16.0)


def test_time_of_the_host_is_booked_too():
    clock = Clock()
    queue = Queue(clock)
    ledger = Ledger(queue, clock)
    ledger.switch("train")
    clock.now = 5.0
    ledger.switch("selection")
    queue.work(1.0)
    assert ledger.counted() == 6.0
    assert sum(ledger.seconds.values()) == ledger.wall() == 6.0


def test_a_system_clock_that_is_set_moves_no_second_of_the_ledger(tmp_path, monkeypatch):
    spec = {**experiment(tmp_path, "random-search").specs[0], "budget": {"unit": "seconds", "amount": 0.2}}
    steady = run_one(spec, tmp_path / "steady", now=Ticks())
    jumps = random.Random(0)
    monkeypatch.setattr("time.time", lambda: jumps.uniform(0, 4e9))
    jumping = run_one(spec, tmp_path / "jumping", now=Ticks())
    assert jumping.accounts == steady.accounts
    assert read_run(tmp_path / "jumping" / run_id(spec)).records == read_run(tmp_path / "steady" / run_id(spec)).records
    assert any(re.fullmatch(r"the clock jumped by -?\S+ s", reason) for reason in jumping.invalid_because)
