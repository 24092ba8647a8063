"""Where runs are made: in this process, on the nodes of a cluster, or in jobs.  Records, folders and ids are the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from bench.command.batches import Batches, batches_of
from bench.command.command_line import resolve_device
from bench.command.handover import Journal
from bench.command.planning import Planned
from bench.command.run_series import launch
from bench.command.side_by_side import SideBySide, check_workers
from bench.experiment.expansion import Experiment
from bench.experiment.yaml_file import ConfigError
from bench.records import Status
from bench.records.errors import DeviceLostError


class Launcher(Protocol):
    """A way to make planned runs."""

    def device(self, name: str, begun: str | None) -> str:
        """Returns cpu or cuda for the option `--device`; `begun` is what an earlier process of the command returned.

        Raises `ConfigError` or `DeviceLostError` if there is none.
        """
        ...

    def begin(self, root: Path) -> None:
        """Fetches into the results folder what is kept elsewhere, before the runs are planned."""
        ...

    def batches(self, todo: Sequence[Planned], data_root: Path | None) -> Batches:
        """Returns which runs are made together."""
        ...

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the planned runs that are not done yet, and returns how many of them ended in each status."""
        ...


@dataclass(frozen=True)
class Local:
    """Makes runs on this machine: one after another, or side by side in several processes unless they are timed."""

    workers: int = 1

    def device(self, name: str, begun: str | None) -> str:
        """Returns the device; one that the command began with must still be there."""
        if begun == "cuda" and not torch.cuda.is_available():
            raise DeviceLostError("the GPU that the command began with is gone; repeat the command when it is back")
        return begun or resolve_device(name)

    def begin(self, root: Path) -> None:
        """Fetches nothing: the folder has all."""

    def batches(self, todo: Sequence[Planned], data_root: Path | None) -> Batches:
        """Returns batches that are as large as they may be, or small enough to give every worker something to do."""
        if self.workers > 1:
            return SideBySide(self.workers, os.getpid()).batches(todo, data_root)
        return batches_of(todo, data_root)

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the runs: see `bench.command.run_series` and `bench.command.side_by_side`."""
        if self.workers > 1:
            made = SideBySide(self.workers, int(journal.last("parent") or os.getpid()))
            return made.launch(experiments, planned, root, data_root=data_root, journal=journal)
        return launch(experiments, planned, root, data_root=data_root, journal=journal)


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The options of the launchers; None stands for an option that was not given."""

    address: str | None = None
    per_gpu: int | None = None
    cpus_per_run: int | None = None
    array_parallelism: int | None = None
    job_minutes: int | None = None
    sbatch: Sequence[str] | None = None
    wait: bool | None = None
    storage: str | None = None
    workers: int | None = None


OPTIONS: Mapping[str, tuple[str, ...]] = {
    "local": ("workers",),
    "ray": ("address", "per_gpu", "cpus_per_run", "storage"),
    "slurm": ("cpus_per_run", "array_parallelism", "job_minutes", "sbatch", "wait", "storage"),
}
"""The launchers, each with its options."""
JOB_MINUTES = 60
"""The time of a job unless `--job-minutes` is given."""


def launcher(name: str, nodes: Nodes) -> Launcher:
    """Returns the launcher of that name.  Raises `ConfigError` if it is unknown, not installed, or cannot be reached."""
    if name not in OPTIONS:
        raise ConfigError(f"--launcher {name}: allowed: {', '.join(OPTIONS)}")
    for option, value in vars(nodes).items():
        if value is not None and option not in OPTIONS[name]:
            having = " and ".join(other for other in OPTIONS if option in OPTIONS[other])
            raise ConfigError(f"--{option.replace('_', '-')}: is an option of --launcher {having}, not of {name}")
    if nodes.storage:
        from bench.command.store import Store

        store = Store(nodes.storage)
    else:
        store = None
    if name == "ray":
        from bench.command.cluster import OnNodes
        from bench.command.ray_pool import RayPool

        return OnNodes(RayPool(nodes.address or "auto"), nodes.per_gpu or 1, nodes.cpus_per_run, store)
    if name == "slurm":
        from bench.command.arrays import sbatch_options
        from bench.command.queued import OnQueue
        from bench.command.slurm_queue import SlurmQueue

        options = sbatch_options(nodes.sbatch or ())
        queue = SlurmQueue(nodes.job_minutes or JOB_MINUTES, nodes.array_parallelism, options)
        return OnQueue(queue, nodes.cpus_per_run, nodes.wait is not False, store)
    check_workers(nodes.workers or 1)
    return Local(nodes.workers or 1)
