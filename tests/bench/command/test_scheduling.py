"""Which node makes which run, on simulated clusters and a fake clock."""

import pytest
from simulated_pool import Silent, SimulatedPool

from bench.command.drive import drive
from bench.command.remote_run import Result
from bench.command.scheduling import MOST_DEATHS, End, Job, Node, Scheduler, Verdict, demand_of
from bench.process.signals import Interrupted, Stopper
from bench.records.errors import ClusterError

UNTIMED = {"device": "cpu", "threads": 1, "budget": {"unit": "steps", "amount": 60}}
TIMED = {**UNTIMED, "budget": {"unit": "seconds", "amount": 60}}
GPU = {"device": "cuda", "threads": None}


def jobs(count, spec=UNTIMED, name="run", **options):
    demand = demand_of(spec, **{"per_gpu": 1, "cpus": None, "needs": "", **options})
    return [Job(f"{name}-{i}", demand) for i in range(count)]


def driven(pool, todo, stopper=None):
    scheduler, watcher = Scheduler.of(todo), Silent(pool)
    drive(scheduler, pool, watcher, now=pool.now, stopper=stopper or Stopper())
    return watcher


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_256_workers_that_die_at_random_end_every_run_exactly_once(seed):
    pool = SimulatedPool(256, seed, deaths=0.2, unseen=0.3, leaving=0.05)
    watcher = driven(pool, todo := jobs(600))
    assert pool.ended == dict.fromkeys([job.id for job in todo], 1)
    ends = [[verdict for verdict in all if verdict is not Verdict.AGAIN] for all in watcher.verdicts.values()]
    assert ends == [[Verdict.ENDED]] * 600
    assert any(end is End.NOT_BEGUN for _, end, _ in watcher.told)
    assert sum(end is End.DIED for _, end, _ in watcher.told) > 100
    assert sum(end is End.TAKEN for _, end, _ in watcher.told) > 10


def test_a_batch_is_one_job_whose_runs_are_made_alone_once_its_process_has_died():
    pool = SimulatedPool(16, deaths=0.2, unseen=0.3, leaving=0.05)
    todo = [Job(f"{job.id}-0", job.demand, tuple(f"{job.id}-{i}" for i in range(1, 8))) for job in jobs(40)]
    watcher = driven(pool, todo)
    assert pool.ended == dict.fromkeys([run for job in todo for run in job.runs], 1)
    died = [start.job for start, end, _ in watcher.told if start.job.beside and end is End.DIED]
    alone = {start.job.id for start, end, _ in watcher.told if not start.job.beside and end is End.MADE}
    assert died
    assert alone == {run for job in died for run in job.runs}


def test_the_runs_that_a_batch_has_left_are_made_alone():
    (node,) = SimulatedPool(1).nodes()
    (job,) = jobs(1)
    scheduler = Scheduler.of([Job("a", job.demand, ("b", "c"))])
    assert scheduler.queued == 3
    (start,) = scheduler.starts([node], 0.0)
    assert (start.job.runs, scheduler.queued) == (("a", "b", "c"), 0)
    assert scheduler.heard("a", End.MADE, now=1.0, made={"b"}) is Verdict.APART
    assert [start.job.runs for start in scheduler.starts([node._replace(cpus=2.0)], 1.0)] == [("a",), ("c",)]


def test_workers_are_never_idle_while_runs_wait():
    pool = SimulatedPool(40)
    driven(pool, jobs(400))
    assert pool.clock < 400 * 5.5 / 40 * 1.25


def test_a_run_whose_processes_die_without_progress_has_failed():
    pool = SimulatedPool(2, deaths=1.0)
    pool.saved = type("Nothing", (dict,), {"__setitem__": lambda *a: None})()
    watcher = driven(pool, jobs(3))
    last = [verdicts[-1] for verdicts in watcher.verdicts.values()]
    assert last == [Verdict.FAILED] * 3
    assert {len(verdicts) for verdicts in watcher.verdicts.values()} == {MOST_DEATHS}


def test_runs_in_plain_steps_are_timed():
    assert demand_of({**UNTIMED, "budget": {"unit": "plain_steps", "amount": 60}}, per_gpu=1, cpus=None, needs="").timed


def test_a_run_that_another_runner_keeps_is_left_to_it():
    pool = SimulatedPool(1)
    pool.claims["run-0"] = 1e9
    watcher = driven(pool, jobs(2))
    assert watcher.verdicts["run-0"][-1] is Verdict.LEFT
    assert pool.ended == {"run-1": 1}


def test_timed_runs_are_alone_on_their_device_and_others_share():
    eight = SimulatedPool(4, cpus=8.0)
    driven(eight, jobs(20, TIMED))
    assert eight.side_by_side == 1
    shared = SimulatedPool(4, cpus=8.0)
    driven(shared, jobs(64))
    assert shared.side_by_side == 8
    twos = SimulatedPool(4, cpus=8.0)
    driven(twos, jobs(64, cpus=2))
    assert twos.side_by_side == 4
    mixed = SimulatedPool(1, cpus=8.0)  # asserts that no node has more than it can hold
    driven(mixed, [*jobs(9), *jobs(3, TIMED, name="timed"), *jobs(9, name="more")])
    assert len(mixed.ended) == 21


def test_two_untimed_runs_share_a_gpu_if_asked_and_timed_ones_never():
    node = Node("a", "a", 16.0, 2.0)
    untimed, timed = {**UNTIMED, **GPU}, {**TIMED, **GPU}
    assert len(Scheduler.of(jobs(9, untimed, per_gpu=2)).starts([node], 0.0)) == 4
    assert len(Scheduler.of(jobs(9, untimed)).starts([node], 0.0)) == 2
    assert len(Scheduler.of(jobs(9, timed, per_gpu=2)).starts([node], 0.0)) == 2


def test_runs_are_spread_over_the_nodes():
    nodes = [Node(name, name, 4.0, 0.0) for name in "ab"]
    assert [start.node.name for start in Scheduler.of(jobs(4)).starts(nodes, 0.0)].count("a") == 2


def test_what_a_node_lacks_is_asked_once_and_its_runs_go_elsewhere():
    pool = SimulatedPool(2)
    plain, asked = pool.end_of, []

    def end_of(name, start):
        if start.node.id == "0" and name.startswith("images"):
            asked.append(name)
            return End.REFUSED
        return plain(name, start)

    pool.end_of = end_of
    driven(pool, [*jobs(20, name="images", needs="images"), *jobs(20)])
    assert len(pool.ended) == 40
    assert len(asked) == 1


def test_if_every_node_refuses_the_command_ends_with_their_reasons():
    pool = SimulatedPool(2)
    pool.wait = lambda seconds: [(name, Result(End.NODE_REFUSED, "is too old")) for name in [*pool.at_work]]
    scheduler = Scheduler.of(jobs(4))
    with pytest.raises(ClusterError, match="4 runs are left that no node can make: node-0 is too old; node-1 is too old"):
        drive(scheduler, pool, Silent(pool), now=pool.now, stopper=Stopper())


def test_a_cluster_without_nodes_is_waited_for_and_then_given_up():
    pool = SimulatedPool(0)
    with pytest.raises(ClusterError, match="2 runs are left that no node can make: the cluster has no node"):
        driven(pool, jobs(2))
    assert 30 <= pool.clock < 32


def test_a_signal_stops_every_run():
    pool, stopper = SimulatedPool(4), Stopper()
    plain = pool.start

    def start(*arguments):
        plain(*arguments)
        stopper.asked = 2

    pool.start = start
    scheduler, watcher = Scheduler.of(jobs(9)), Silent(pool)
    with pytest.raises(Interrupted):
        drive(scheduler, pool, watcher, now=pool.now, stopper=stopper)
    assert [end for _, end, _ in watcher.told] == [End.STOPPED] * 4
    assert not scheduler.running
