"""`run --workers N`: runs whose seconds do not matter are made side by side on this machine, and then the others in turn.

A batch of runs that are trained together is one piece of work.  Nothing works beside a run whose seconds matter: see
PROTOCOL.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.command.cluster import OnNodes
from bench.command.handover import Journal
from bench.command.planning import Planned
from bench.command.run_series import make_in_turn, prepare_runs
from bench.command.scheduling import Demand, Scheduler
from bench.command.worker_pool import WorkerPool
from bench.experiment.expansion import Experiment
from bench.experiment.yaml_file import ConfigError
from bench.process.share import machine_processors
from bench.records import Status
from bench.records.durations import plural


def check_workers(count: int) -> None:
    """Raises `ConfigError` if this machine has fewer processors than workers are asked for."""
    if count > (most := machine_processors()):
        has = plural(most, "processor")
        raise ConfigError(f"--workers {count}: this machine has {has}, and each worker needs one; at most {most}")


class SideBySide(OnNodes):
    """Makes runs in so many processes of this machine, the only node of the pool; each has its share of the processors.

    The processes rest while the process with the id `parent` is stopped.
    """

    def __init__(self, workers: int, parent: int):
        super().__init__(WorkerPool(workers, parent), per_gpu=1, cpus_per_run=None)
        self._workers = workers

    def demand(self, items: Sequence[Planned]) -> Demand:
        """Returns a worker's share of the processors or, for a run that has more threads, as many as it has."""
        most = machine_processors()
        processors = min(float(most), max(most / self._workers, items[0].spec["threads"] or 1))
        return Demand(on_gpu=False, timed=False, cpus=processors, per_gpu=1, needs="")

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the planned runs that are not done yet, and returns how many of them ended in each status.

        Raises:
            ClusterError: if the folder cannot be written, or runs lack their data.
            DeviceLostError: as `bench.command.run_series.launch` does, for timed runs.
        """
        todo = prepare_runs(experiments, planned, root, data_root=data_root, journal=journal)
        timed = [item for item in todo if item.has_its_own_seconds]
        others = [item for item in todo if not item.has_its_own_seconds]
        counts: Counter[Status] = Counter()
        if others:
            jobs = sorted(self.jobs(others, data_root), key=lambda job: -len(job.runs))  # the longest work first
            scheduler = Scheduler.of(jobs)
            counts = self.make(scheduler, [*others, *timed], root, data_root=data_root, journal=journal)
        return counts + make_in_turn(timed, root, data_root=data_root, journal=journal)
