"""Which runs are submitted together to a queue: an array has runs that ask for the same, each in a job of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.command.scheduling import Job
from bench.experiment.yaml_file import ConfigError

MOST_JOBS = 1000
"""The most jobs of one array: Slurm's default limit is 1001."""
OURS: Mapping[str, str] = {
    "time": "use --job-minutes", "array": "use --array-parallelism", "cpus-per-task": "use --cpus-per-run",
    **dict.fromkeys(("signal", "output", "error", "open-mode", "requeue", "no-requeue"), "the command sets it"),
}  # fmt: skip
"""Options of `sbatch` that this command sets, and what to do instead of giving them."""


class Resources(NamedTuple):
    """What each job of an array asks for.  `is_alone` stands for a whole node, and `cpus` is then the least it may have."""

    cpus: int | None
    gpus: int
    is_alone: bool


class Array(NamedTuple):
    """Runs, by id, that are submitted together."""

    resources: Resources
    runs: Sequence[str]


def arrays(jobs: Iterable[Job]) -> Iterator[Array]:
    """Yields the arrays in which the jobs are submitted, each job once, in their order within what they ask for."""
    alike: dict[Resources, list[str]] = {}
    for job in jobs:
        demand = job.demand
        cpus = int(demand.cpus) if demand.cpus else 1 if demand.on_gpu else None
        alike.setdefault(Resources(cpus, int(demand.on_gpu), demand.is_alone), []).append(job.id)
    for resources, runs in alike.items():
        for first in range(0, len(runs), MOST_JOBS):
            yield Array(resources, runs[first : first + MOST_JOBS])


def sbatch_options(given: Sequence[str]) -> dict[str, str | bool]:
    """Returns the options of `--sbatch KEY=VALUE`, each once; a bare KEY is an option without a value.

    Raises `ConfigError` for what is no option, or one that this command sets itself.
    """
    found: dict[str, str | bool] = {}
    for text in given:
        name, sign, value = text.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", name) or (sign and not value) or not value.isprintable():
            raise ConfigError(f"--sbatch {text!r}: KEY=VALUE is expected, such as partition=gpu")
        if name in OURS:
            raise ConfigError(f"--sbatch {name}: {OURS[name]}")
        if name in found:
            raise ConfigError(f"--sbatch {name}: is given twice")
        found[name] = value if sign else True
    return found
