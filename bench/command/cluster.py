"""Makes runs on the nodes of a pool: this process plans, watches and prints; workers make each run, or batch of runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.command.batches import Batches, batches_of
from bench.command.books import Books
from bench.command.command_line import check_device
from bench.command.drive import Pool, drive, nodes_in_words
from bench.command.handover import Journal
from bench.command.nodes_display import NodesDisplay
from bench.command.planning import Planned, origins
from bench.command.remote_run import Result, order_of, places
from bench.command.run_series import prepare_runs
from bench.command.scheduling import Demand, Job, Node, Scheduler, Start, Verdict, demand_of
from bench.command.store import Mirror, Store
from bench.experiment.expansion import Experiment
from bench.experiment.spec import packages_of
from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Stopper
from bench.records import Outcome, Status


@dataclass
class OnNodes:
    """Makes runs on the nodes of a pool; `per_gpu` untimed runs share a GPU, and each run has `cpus_per_run` processors."""

    pool: Pool
    per_gpu: int
    cpus_per_run: int | None
    store: Store | None = None

    def begin(self, root: Path) -> None:
        """Fetches what the store has, if there is one."""
        Mirror(self.store, root).begin()

    def device(self, name: str, begun: str | None) -> str:
        """Returns the device; `auto` stands for GPUs if any node has one."""
        check_device(name)
        nodes = self.pool.nodes()
        has_gpu = any(node.gpus for node in nodes)
        if name == "cuda" and not has_gpu:
            raise ConfigError(f"--device cuda: no node has a GPU ({nodes_in_words(nodes)}); use cpu or auto")
        return begun or ("cuda" if has_gpu and name == "auto" else "cpu" if name == "auto" else name)

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the planned runs that are not done yet, and returns how many of them ended in each status.

        Raises:
            ConfigError: if no node has what a run asks for.
            ClusterError: if the cluster is lost, or no node can make the runs that are left.
        """
        jobs = self.jobs([item for item in planned if not item.is_done], data_root)
        scheduler, nodes = Scheduler.of(jobs), self.pool.nodes()
        if lacking := scheduler.impossible(nodes):
            raise ConfigError(f"no node has {lacking} for a run: {nodes_in_words(nodes)}")
        todo = prepare_runs(experiments, planned, root, data_root=data_root, journal=journal)
        return self.make(scheduler, todo, root, data_root=data_root, journal=journal)

    def make(self, scheduler: Scheduler, todo: Sequence[Planned], root: Path, *, data_root: Path | None,
             journal: Journal) -> Counter[Status]:  # fmt: skip
        """Has the scheduler's jobs done in a folder that is prepared; `todo` are all runs that the command is to make."""
        mirror = Mirror(self.store, root)
        mirror.plans(item.id for item in todo if item.starts_over)
        stopper, before = Stopper(), len(journal.tried)
        with stopper.listening(), stopper.patience(), NodesDisplay([item.spec for item in todo], before) as display:
            books = Books({item.id: item for item in todo}, mirror, journal, display)
            watcher = _Watcher(books, places(root, data_root, self.store))
            with self._left_at_the_end():
                drive(scheduler, self.pool, watcher, now=time.monotonic, stopper=stopper)
        return books.counts

    def batches(self, todo: Sequence[Planned], data_root: Path | None) -> Batches:
        """Returns batches no larger than it takes to give all places on the nodes something to do."""
        untimed = {item.id: item for item in todo if not item.has_its_own_seconds}
        alike = {(item.spec["device"], item.spec["threads"]): item for item in untimed.values()}
        places = min((self.demand([item]).places(self.pool.nodes()) for item in alike.values()), default=1)
        largest = -(-len(untimed) // max(1, places))
        if largest < 2:
            timed = [item for item in todo if item.id not in untimed]
            reasons = dict.fromkeys(untimed, "the nodes have a place for each")
            return Batches((), batches_of(timed, data_root).alone | reasons)
        return batches_of(todo, data_root, largest=largest)

    def jobs(self, todo: Sequence[Planned], data_root: Path | None) -> list[Job]:
        """Returns the jobs that make the runs.  Runs of an experiment share all but the seed, and so a demand."""
        batches = {batch[0].id: batch for batch in self.batches(todo, data_root).together}
        beside = {item.id for batch in batches.values() for item in batch[1:]}
        demands: dict[tuple[int, ...], Demand] = {}
        jobs = []
        for first in todo:
            if first.id in beside:
                continue
            items = batches.get(first.id, (first,))
            shared = tuple(id(part) for item in items for key, part in item.spec.items() if key != "seed")
            if shared not in demands:
                demands[shared] = self.demand(items)
            jobs.append(Job(first.id, demands[shared], tuple(item.id for item in items[1:])))
        return jobs

    def demand(self, items: Sequence[Planned]) -> Demand:
        """Returns what a run, or a batch of runs, asks of a node."""
        spec, plugins = items[0].spec, {origin["hash"] for item in items for origin in origins(item.spec)}
        packages = sorted({package.distribution for item in items for package in packages_of(item.spec)})
        needs = json.dumps({"task": spec["task"], "plugins": sorted(plugins), "packages": packages}, sort_keys=True)
        return demand_of(spec, per_gpu=self.per_gpu, cpus=self.cpus_per_run, needs=needs)

    @contextmanager
    def _left_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.pool.close()


class _Watcher:
    """Gives out the orders of one command, and has its books kept."""

    def __init__(self, books: Books, common: Mapping[str, Any]):
        self._books, self._common = books, common

    def order(self, job: Job) -> Mapping[str, Any]:
        return order_of([self._books.items[run] for run in job.runs], self._common)

    def started(self, start: Start) -> None:
        for run in start.job.runs:
            self._books.started(run, start.node.name)

    def ended(self, job: Job) -> Mapping[str, Outcome]:
        return self._books.ended(job.runs)

    def saved(self, job: Job) -> float:
        return self._books.saved(job.id)

    def look(self, scheduler: Scheduler, nodes: Sequence[Node]) -> None:
        self._books.look(len(nodes), scheduler.queued)

    def heard(self, start: Start, result: Result, verdict: Verdict) -> None:
        self._books.heard(start.job.runs, start.node.name, result, verdict)
