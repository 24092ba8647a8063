"""Checkpoints: everything a run needs to continue, as tensors and plain values.  No pickle is ever loaded.

A checkpoint is either complete or absent: it is written beside its place, flushed to the disk, and renamed.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.records.files import opened, read, reason, replacing, unfinished
from bench.records.json_files import intact

CHECKPOINT = "checkpoint.pt"
PARAMETER = "parameter "
"""Prefix of a key that stands for a model's parameter."""

log = logging.getLogger("oho-bench")


def packed(value: Any, parameters: Sequence[Tensor] = ()) -> Any:
    """Returns a copy of nested containers with tensors detached and keys from `parameters` replaced by numbered names."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
        return {
            f"{PARAMETER}{numbers[id(key)]}" if id(key) in numbers else key: packed(item, parameters)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(packed(item, parameters) for item in value)
    return value


def unpacked(value: Any, parameters: Sequence[Tensor] = ()) -> Any:
    """Inverts `packed`, with these parameters as keys."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {
            parameters[int(key.removeprefix(PARAMETER))]
            if isinstance(key, str) and key.startswith(PARAMETER)
            else key: unpacked(item, parameters)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(unpacked(item, parameters) for item in value)
    return value


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Replaces the folder's checkpoint.  Raises OSError if it cannot be written; the older one is then intact."""
    try:
        with replacing(folder / CHECKPOINT) as file:
            torch.save(dict(content), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None  # torch hides the system's error
        raise


def has_checkpoint(folder: Path) -> bool:
    """Returns whether the folder has a checkpoint, or what a killed process left of one."""
    return (folder / CHECKPOINT).exists() or unfinished(folder / CHECKPOINT).exists()


def discard_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a run that has ended, and what a killed process left of one."""
    for path in (folder / CHECKPOINT, unfinished(folder / CHECKPOINT)):
        path.unlink(missing_ok=True)


class Earlier(NamedTuple):
    """An earlier process's checkpoint of a run, and the seconds of work that the process did after it."""

    content: dict[str, Any]
    lost: float


def resumable(folder: Path, version: int) -> Earlier | None:
    """Returns the folder's checkpoint, or None if there is none or, with a warning, if the run cannot continue from it.

    The lost work is at least the time from the checkpoint to the last record after it.
    """
    path, records = folder / CHECKPOINT, folder / "records.jsonl"
    if not path.exists():
        return None
    try:
        with opened(path) as file:
            with zipfile.ZipFile(file) as archive:
                if damaged := archive.testzip():  # torch does not check the sums that it writes
                    raise ValueError(f"{damaged} is damaged")
            file.seek(0)
            content = torch.load(file, weights_only=True)  # keeps devices: an optimizer's count may be on another one
        if content["version"] != version:
            raise ValueError(f"it has version {content['version']}, and this one is {version}")
        written = read(records) if records.exists() else b""
        if intact(written[: content["records"]]) < content["records"]:
            raise ValueError("its records are damaged")
        lost = _last_wall_seconds(written) - sum(content["seconds"].values())
    except Exception as error:  # a damaged file can raise any error: in unzipping, in unpickling, of missing keys
        why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:120]
        log.warning("%s: cannot be used (%s); the run starts over", path, why)
        return None
    return Earlier(content, max(0.0, lost))


def _last_wall_seconds(content: bytes) -> float:
    """Returns the wall time of the last intact record, or 0 if there is none."""
    lines = content[: intact(content)].splitlines()
    return json.loads(lines[-1])["wall_seconds"] if lines else 0.0
