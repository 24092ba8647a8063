"""Describes where a run took place: versions, commit, device.  It has no user names, paths or environment variables.

The machine has a name, the user's own or a hash: see `bench.run.node`.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.protocol import Package
from bench.protocol.task import memory_format
from bench.run.node import driver_of, node_name

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "scikit-optimize", "optuna", "cmaes", "wandb")


def describe_environment(
    device: torch.device, threads: int, *, data: str | None, packages: Sequence[Package] = (), engine: str = "eager"
) -> dict[str, Any]:
    """Returns what a reader needs to judge whether two runs can be compared, `finished` at the present time.

    `data` names the loaded data, if any; `packages` are what the run's method needs besides those that all runs have;
    `engine` is how steps were made.
    """
    commit, dirty = commit_of(Path(__file__).resolve())
    driver = driver_of(device)
    return {
        "python": platform.python_version(),
        **_versions(tuple(package.distribution for package in packages)),
        "commit": commit,
        "dirty": dirty,
        "data": data or "not loaded",
        "device_name": _gpu(device) if device.type == "cuda" else _processor(),
        **({"driver": driver} if driver else {}),
        "node": node_name(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "threads": threads,
        "engine": engine,
        "numerics": numerics(device),
        "finished": _now(),
    }


def numerics(device: torch.device) -> dict[str, Any]:
    """Returns what PyTorch is set to where speed and rounding are in exchange, and how images lie in memory."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "float32_matmul_precision": matrices.fp32_precision,
        "float32_convolution_precision": convolutions.conv.fp32_precision,  # type: ignore[attr-defined]
        "cudnn_benchmark": convolutions.benchmark,
        "cudnn_deterministic": convolutions.deterministic,
        "memory_format": str(memory_format(device)).removeprefix("torch.").removesuffix("_format"),
    }


def finished_now(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an environment that was described at the start, `finished` at the present time."""
    return {**environment, "finished": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def place_and_date(environment: dict[str, Any]) -> str:
    """Returns device, threads, torch version, date and commit from `describe_environment`, for the head of a table."""
    changes = " with changes" if environment["dirty"] else ""
    return (
        f"{environment['device_name']}, {environment['threads']} threads, torch {environment['torch']},"
        f" {environment['finished'][:10]}, commit {environment['commit'][:12]}{changes}."
    )


@cache
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the version of each package, without those that are not installed; they stay what they are."""
    found = {}
    for name in (*PACKAGES, *packages):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {**found, "oho-bench": version("oho-bench")}


def _gpu(device: torch.device) -> str:
    try:
        return torch.cuda.get_device_name(device)
    except (RuntimeError, AssertionError):  # after a crash, the GPU may be gone
        return "a GPU that does not answer"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.machine()


@cache
def commit_of(file: Path) -> tuple[str, bool]:
    """Returns the commit of the repository that a source file belongs to, and whether files of it have been changed.

    A file that no repository tracks, such as one of an environment inside a repository, gives ("unknown", False).
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
        return _git(file.parent, "rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def tracked_files(folder: Path, *parts: str) -> list[str]:
    """Returns the files in those parts of a folder that its repository tracks; none if there is no repository."""
    try:
        return [name for name in _git(folder, "ls-files", "-z", "--", *parts).split("\0") if name]
    except (OSError, subprocess.SubprocessError):
        return []


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
