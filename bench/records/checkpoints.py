"""Checkpoints: all that a run needs to go on, as tensors and plain values.  No pickle is ever loaded.

A checkpoint is a whole file or none: it is written beside its place, brought to the disk, and renamed.
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

from bench.records.json_files import intact, replacing, unfinished

CHECKPOINT = "checkpoint.pt"
PARAMETER = "parameter "
"""How a key begins that stands for a model's parameter."""

log = logging.getLogger("oho-bench")


def packed(value: Any, parameters: Sequence[Tensor] = ()) -> Any:
    """A copy of nested containers in which a tensor is detached, and one of `parameters` as a key is its number's name."""
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
    """What `packed` was given, with these parameters as keys."""
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
    """Replaces the folder's checkpoint.  Raises OSError where it cannot be written; the older one is whole then."""
    try:
        with replacing(folder / CHECKPOINT) as file:
            torch.save(dict(content), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None  # torch hides what the system said
        raise


def has_checkpoint(folder: Path) -> bool:
    """Or what a kill has left of one."""
    return (folder / CHECKPOINT).exists() or unfinished(folder / CHECKPOINT).exists()


def discard_checkpoint(folder: Path) -> None:
    """Of a run that has ended; also what a kill has left of one."""
    for path in (folder / CHECKPOINT, unfinished(folder / CHECKPOINT)):
        path.unlink(missing_ok=True)


class Earlier(NamedTuple):
    """What an earlier process left of a run: its checkpoint, and how long it had worked after that, in seconds."""

    content: dict[str, Any]
    lost: float


def resumable(folder: Path, version: int) -> Earlier | None:
    """The folder's checkpoint; None where there is none or, with a warning, where the run cannot go on from it.

    What was lost is at least the work from the checkpoint to the last record after it.
    """
    path, records = folder / CHECKPOINT, folder / "records.jsonl"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch does not look at the sums that it writes
                raise ValueError(f"{damaged} is damaged")
        content = torch.load(path, weights_only=True)  # each tensor where it was: an optimizer's count may be elsewhere
        if content["version"] != version:
            raise ValueError(f"version {content['version']}, this one is {version}")
        written = records.read_bytes() if records.exists() else b""
        if intact(written[: content["records"]]) < content["records"]:
            raise ValueError("its records are damaged")
        lost = _last_wall_seconds(written) - sum(content["seconds"].values())
    except Exception as error:  # damaged files raise anything: of zip, of unpickling, of what is missing
        log.warning("%s: cannot be used (%s); the run starts anew", path, " ".join(str(error).split())[:120])
        return None
    return Earlier(content, max(0.0, lost))


def _last_wall_seconds(content: bytes) -> float:
    """Of the last record that is whole; 0 where there is none."""
    lines = content[: intact(content)].splitlines()
    return json.loads(lines[-1])["wall_seconds"] if lines else 0.0
