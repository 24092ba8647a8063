"""Checkpoints: all that a run needs to go on, as tensors and plain values.  No pickle is ever loaded.

A checkpoint is a whole file or none: it is written beside its place, brought to the disk, and renamed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NAME = "checkpoint.pt"
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
    """What `packed` was given, with these parameters as keys, tensors on the device of the first of them."""
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
    temporary = folder / f".{NAME}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / NAME)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The folder's checkpoint; None where there is none or, with a warning, where it cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged files raise anything: zip, unpickling and runtime errors
        log.warning("%s: cannot be read (%s); the run starts anew", path, str(error).split("\n", 1)[0][:120])
        return None
    return content if isinstance(content, dict) else None
