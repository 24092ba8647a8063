"""Slurm's queue for `bench.command.queued`: a thin layer over `submitit`, which submits, and over `squeue`."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.command import node_task
from bench.command.arrays import Resources
from bench.command.queued import FOLDER
from bench.command.remote_run import Result
from bench.command.scheduling import End
from bench.command.slurm_task import RunInJob
from bench.experiment.yaml_file import ConfigError
from bench.records.errors import one_line

MOST_REQUEUES = 10_000
"""How often a job may join the queue again: as long as its run gets further each time."""
WARNING_SECONDS = 90
"""So long before a job's time is over it is asked to write a checkpoint."""
SLURM_SECONDS = 60.0
"""How long Slurm may take to answer."""
CODE = str(Path(__file__).parents[2])


class SlurmQueue:
    """Jobs of at most so many minutes, with the user's own options of `sbatch`."""

    def __init__(self, minutes: int, parallelism: int | None, options: Mapping[str, str | bool]):
        """Raises `ConfigError` if submitit is not installed or this machine submits no jobs."""
        self._submitit = _imported()
        if shutil.which("sbatch") is None:
            what = "sbatch is not found; run the command on a machine from which jobs are submitted"
            raise ConfigError(f"--launcher slurm: {what}")
        self._minutes, self._parallelism, self._options = minutes, parallelism, options
        self._common = {"version": version("oho-bench"), "code": node_task.hash_of_code(CODE)}
        self._last: dict[str, str | None] = {}
        self._asked: set[str] = set()
        """The jobs of the last answer: those that were in the queue, and those that were no longer."""

    def has_gpus(self) -> bool:
        """Returns whether a node of the partition has a GPU."""
        partition = self._options.get("partition", self._options.get("p"))
        words = ["sinfo", "--noheader", "--format=%G", *([f"--partition={partition}"] if partition else [])]
        try:
            answer = subprocess.run(words, capture_output=True, text=True, timeout=SLURM_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigError(f"--launcher slurm: sinfo does not answer ({one_line(str(error))})") from None
        if answer.returncode:
            raise ConfigError(f"--launcher slurm: {_errors(answer.stderr)}")
        return "gpu" in answer.stdout

    def submit(self, root: Path, resources: Resources, orders: Sequence[Mapping[str, Any]]) -> list[str]:
        """Submits an array.  Raises `ConfigError` with the words of `sbatch` if it refuses that."""
        if "%" in str(root):
            raise ConfigError(f"--out {root}: Slurm replaces the sign % in names of files; choose another folder")
        executor, said = self._executor(root / FOLDER, resources), io.StringIO()
        try:
            with contextlib.redirect_stderr(said):  # submitit prints what it raises
                jobs = executor.map_array(RunInJob(), [{**self._common, **order} for order in orders])
        except self._submitit.core.utils.FailedJobError as error:
            raise ConfigError(f"--launcher slurm: {_errors(str(error))}") from None
        return [job.job_id for job in jobs]

    def _executor(self, folder: Path, resources: Resources) -> Any:
        python = f"{shlex.quote(sys.executable)} -P"
        executor = self._submitit.SlurmExecutor(folder, max_num_timeout=MOST_REQUEUES, python=python)
        places = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), CODE])
        optional: dict[str, Any] = {"array_parallelism": self._parallelism, "gpus_per_node": resources.gpus or None}
        if resources.is_alone:
            optional |= {"exclusive": True, "srun_args": ["--cpu-bind=none"]}
        executor.update_parameters(
            job_name="oho-bench", time=self._minutes, nodes=1, ntasks_per_node=1, cpus_per_task=resources.cpus,
            signal_delay_s=WARNING_SECONDS, stderr_to_stdout=True, wckey=None,
            setup=[f"export PYTHONPATH={shlex.quote(places)}"],
            additional_parameters={"requeue": True, **self._options},
            **{name: value for name, value in optional.items() if value is not None},
        )  # fmt: skip
        return executor

    def look(self, jobs: Collection[str]) -> dict[str, str | None]:
        """Returns those jobs that are in the queue; if Slurm does not answer, those that were in it before and new ones."""
        words = ["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%N"]
        try:
            answer = subprocess.run(words, capture_output=True, text=True, timeout=SLURM_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return {job: self._last.get(job) for job in jobs if job in self._last or job not in self._asked}
        found = (line.strip().split("|") for line in answer.stdout.splitlines())
        wanted = set(jobs)
        self._asked = wanted
        self._last = {job: node if state != "PENDING" and node else None for job, state, node in found if job in wanted}
        return self._last

    def result(self, root: Path, job: str) -> Result | None:
        """Returns what a job has left behind; an error outside of a run counts as a node that cannot work."""
        path = self._paths(root, job).result_pickle
        if not path.exists():
            return None
        kind, content = self._submitit.core.utils.pickle_load(path)
        if kind == "success":
            return content
        return Result(End.NODE_REFUSED, f"cannot work: {one_line(str(content).strip().splitlines()[-1])}")

    def has_begun(self, root: Path, job: str) -> bool:
        """Returns whether a job has written its log."""
        return self._paths(root, job).stdout.exists()

    def how_to_cancel(self, jobs: Collection[str]) -> str:
        """Returns the call of `scancel`."""
        return " ".join(["scancel", *dict.fromkeys(job.partition("_")[0] for job in jobs)])

    def _paths(self, root: Path, job: str) -> Any:
        return self._submitit.core.utils.JobPaths(root / FOLDER, job)


def _imported() -> Any:
    try:
        import submitit
        import submitit.core.utils
    except ModuleNotFoundError:
        raise ConfigError("--launcher slurm: submitit is not installed; pip install 'oho-bench[cluster]'") from None
    return submitit


def _errors(text: str) -> str:
    """Returns what Slurm said was wrong, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.startswith(("sbatch:", "sinfo:", "slurm_"))]
    return one_line("; ".join(dict.fromkeys(lines or text.split("\n")[:1])))
