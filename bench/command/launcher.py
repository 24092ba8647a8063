"""Where runs are made: in this process, or on the nodes of a cluster.  Records, folders and ids are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from bench.command.command_line import resolve_device
from bench.command.handover import Journal
from bench.command.planning import Planned
from bench.command.run_series import launch
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

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the planned runs that are not done yet, and returns how many of them ended in each status."""
        ...


class Local:
    """Makes runs one after another in this process."""

    def device(self, name: str, begun: str | None) -> str:
        """Returns the device; one that the command began with must still be there."""
        if begun == "cuda" and not torch.cuda.is_available():
            raise DeviceLostError("the GPU that the command began with is gone; repeat the command when it is back")
        return begun or resolve_device(name)

    def launch(self, experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *,
               data_root: Path | None, journal: Journal) -> Counter[Status]:  # fmt: skip
        """Makes the runs: see `bench.command.run_series.launch`."""
        return launch(experiments, planned, root, data_root=data_root, journal=journal)


@dataclass(frozen=True)
class Nodes:
    """The options of a launcher for many machines; None stands for an option that was not given."""

    address: str | None = None
    per_gpu: int | None = None
    cpus_per_run: int | None = None


def launcher(name: str, nodes: Nodes) -> Launcher:
    """Returns the launcher of that name.  Raises `ConfigError` if it is unknown, not installed, or cannot be reached."""
    if name == "local":
        given = [f"--{key.replace('_', '-')}" for key, value in vars(nodes).items() if value is not None]
        if given:
            raise ConfigError(f"{given[0]}: only --launcher ray has nodes")
        return Local()
    if name == "ray":
        from bench.command.cluster import OnNodes
        from bench.command.ray_pool import RayPool

        return OnNodes(RayPool(nodes.address or "auto"), nodes.per_gpu or 1, nodes.cpus_per_run)
    raise ConfigError(f"--launcher {name}: allowed: local, ray")
