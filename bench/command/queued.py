"""Makes runs as jobs of a queue: this process submits and watches them, and they go on without it.

A run is one job, which claims it as every runner does.  A job whose time is over writes a checkpoint and joins the queue
again.  The results folder keeps the job of each run in `slurm/ID.json`, so that a command that is repeated watches jobs
that are still in the queue instead of submitting their runs again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.command.arrays import Resources, arrays
from bench.command.batches import Batches
from bench.command.books import Books
from bench.command.command_line import check_device
from bench.command.handover import Journal
from bench.command.nodes_display import NodesDisplay
from bench.command.planning import Planned
from bench.command.remote_run import Result, order_of, places
from bench.command.run_series import prepare_runs
from bench.command.scheduling import End, Job, Verdict, demand_of
from bench.command.store import Mirror, Store
from bench.experiment.expansion import Experiment
from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Interrupted, Stopper, tell
from bench.process.standard_streams import say
from bench.records import RecordError, Status
from bench.records.errors import ClusterError
from bench.records.files import storing
from bench.records.json_files import read_object, write_json

FOLDER = "slurm"
"""Where a results folder keeps its jobs."""
LOOK_SECONDS = 5.0
"""The time between two looks at the queue."""
GONE_SECONDS = 15.0
"""So long after a job has left the queue its result may be invisible on a shared file system."""


class Queue(Protocol):
    """A queue of jobs.  `bench.command.slurm_queue` is one; tests have another."""

    def has_gpus(self) -> bool:
        """Returns whether any node of the queue has a GPU."""
        ...

    def submit(self, root: Path, resources: Resources, orders: Sequence[Mapping[str, Any]]) -> list[str]:
        """Submits a job for each order, and returns their ids.  Raises `ConfigError` if the queue refuses them."""
        ...

    def look(self, jobs: Collection[str]) -> dict[str, str | None]:
        """Returns those jobs that are in the queue, with the node that a running one has."""
        ...

    def result(self, root: Path, job: str) -> Result | None:
        """Returns what a job has left behind, or None if there is nothing yet."""
        ...

    def has_begun(self, root: Path, job: str) -> bool:
        """Returns whether a job has begun at any time."""
        ...

    def how_to_cancel(self, jobs: Collection[str]) -> str:
        """Returns the command by which a user takes jobs out of the queue."""
        ...


@dataclass
class OnQueue:
    """Makes runs as jobs of a queue; without `waits`, the command ends when they are submitted."""

    queue: Queue
    cpus_per_run: int | None
    waits: bool
    store: Store | None = None

    def begin(self, root: Path) -> None:
        """Fetches what the store has, if there is one."""
        Mirror(self.store, root).begin()

    def device(self, name: str, begun: str | None) -> str:
        """Returns the device; `auto` stands for GPUs if any node has one."""
        check_device(name)
        return begun or (name if name != "auto" else "cuda" if self.queue.has_gpus() else "cpu")

    def batches(self, todo: Sequence[Planned], data_root: Path | None) -> Batches:
        """Returns no batches: each run is a job."""
        return Batches((), {item.id: "each run is a job" for item in todo})

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Submits the planned runs that are not done yet, and returns how many of them ended in each status.

        Raises:
            ConfigError: if the queue refuses the jobs.
            ClusterError: if runs are left whose jobs could not make them or were cancelled.
        """
        todo = prepare_runs(experiments, planned, root, data_root=data_root, journal=journal)
        mirror = Mirror(self.store, root)
        mirror.plans(item.id for item in todo if item.starts_over)
        common = places(root, data_root, self.store)
        orders = {item.id: order_of([item], common) for item in todo}
        jobs = {item.id: Job(item.id, demand_of(item.spec, per_gpu=1, cpus=self.cpus_per_run, needs="")) for item in todo}
        stopper, before = Stopper(), len(journal.tried)
        submitted = _Submitted(self.queue, root.absolute(), orders, stopper)
        with stopper.listening(), _jobs_stay(submitted):
            submitted.find()
            submitted.submit(job for job in jobs.values() if job.id not in submitted.ids)
            if not self.waits:
                say(f"jobs in the queue: {len(submitted.ids)}; `oho-bench status {root}` shows how far they are")
                return Counter()
            with NodesDisplay([item.spec for item in todo], before) as display:
                books = Books({item.id: item for item in todo}, mirror, journal, display)
                watch = _Watch(books, jobs, submitted)
                while submitted.ids:
                    watch.look()
        if watch.left:
            reasons = "; ".join(dict.fromkeys(watch.left.values()))
            left = "1 run is" if len(watch.left) == 1 else f"{len(watch.left)} runs are"
            raise ClusterError(f"{left} left: {reasons}; repeat the command to continue")
        return books.counts


@dataclass
class _Submitted:
    """The job in the queue of each run, as `ids`."""

    queue: Queue
    root: Path
    orders: Mapping[str, Mapping[str, Any]]
    stopper: Stopper
    ids: dict[str, str] = field(default_factory=dict)

    def find(self) -> None:
        """Finds the jobs that an earlier command submitted and that are still in the queue."""
        kept = {}
        for run in self.orders:
            try:
                kept[run] = str(read_object(self._place(run), "remove it")["job"])
            except (OSError, RecordError, KeyError):
                continue
        there = self.queue.look(kept.values()) if kept else {}
        self.ids = {run: job for run, job in kept.items() if job in there}

    def submit(self, jobs: Iterator[Job] | Sequence[Job]) -> None:
        """Submits jobs, and keeps their ids."""
        with self.stopper.patience():  # a job that is submitted is kept
            for resources, runs in arrays(jobs):
                self.stopper.check()
                found = self.queue.submit(self.root, resources, [self.orders[run] for run in runs])
                for run, job in zip(runs, found, strict=True):
                    with storing(self.root):
                        self._place(run).parent.mkdir(exist_ok=True)
                        write_json(self._place(run), {"job": job})
                    self.ids[run] = job
        self.stopper.check()

    def _place(self, run: str) -> Path:
        return self.root / FOLDER / f"{run}.json"


@contextmanager
def _jobs_stay(submitted: _Submitted) -> Iterator[None]:
    """Says which jobs stay in the queue if the block is left early."""
    try:
        yield
    except (Interrupted, ConfigError) as end:
        if submitted.ids:
            cancel = submitted.queue.how_to_cancel(submitted.ids.values())
            tell(f"\noho-bench: jobs that stay in the queue: {len(submitted.ids)}; `{cancel}` ends them, with a checkpoint")
            if isinstance(end, ConfigError):
                raise ClusterError(f"some runs could not be submitted: {end}") from None
        raise


@dataclass
class _Watch:
    """Follows the jobs and has the books kept; `left` says why a run was not made."""

    books: Books
    jobs: Mapping[str, Job]
    submitted: _Submitted
    left: dict[str, str] = field(default_factory=dict)
    _gone: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Looks at the queue and at what jobs have left behind, and waits a while."""
        ids, queue, places = self.submitted.ids, self.submitted.queue, self.books.display.places
        there = queue.look(ids.values())
        for run, job in list(ids.items()):
            node = there.get(job)
            if job in there:
                self._gone.pop(job, None)
            if node is not None and places.get(run) != node:
                self.books.started(run, node)
            if job in there and node is None:  # it waits, perhaps again
                if run in places:
                    self.books.display.end_without_outcome(run, "its time was over; it continues from its checkpoint")
                continue
            result = queue.result(self.submitted.root, job) or (self._unseen(run, job) if job not in there else None)
            if result is not None:
                del ids[run]
                self._heard(run, result)
        self.books.look(len(set(places.values())), len(ids) - len(places))
        if ids:
            time.sleep(LOOK_SECONDS)

    def _unseen(self, run: str, job: str) -> Result | None:
        """Returns what became of a job that is gone without a result, or None as long as one may still be seen."""
        if time.monotonic() - self._gone.setdefault(job, time.monotonic()) < GONE_SECONDS:
            return None
        if ended := self.books.ended([run]):
            return Result(End.MADE, outcomes=ended)
        if self.books.written(run) or not self.submitted.queue.has_begun(self.submitted.root, job):
            return Result(End.STOPPED)
        return Result(End.DIED, f"job {job}")

    def _heard(self, run: str, result: Result) -> None:
        node, verdict = self.books.display.places.get(run, "a node"), self._verdict(run, result.end)
        self.books.heard((run,), node, result, verdict)
        if verdict is Verdict.AGAIN:
            self.submitted.submit([self.jobs[run]])
        elif verdict is Verdict.LEFT and result.end is not End.TAKEN:
            self.left[run] = f"{node} {result.reason}" if result.reason else "jobs were cancelled"

    def _verdict(self, run: str, end: End) -> Verdict:
        if end is End.DIED:
            return Verdict.FAILED if self.jobs[run].died(self.books.saved(run)) else Verdict.AGAIN
        return Verdict.ENDED if end is End.MADE else Verdict.LEFT
