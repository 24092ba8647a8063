"""Which runs can be members of one batch, and how many of them are worth one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.experiment.plugins import entry_of
from bench.experiment.spec import Spec, options_in, task_of
from bench.protocol import GRAPH, CannotStackError, MethodEntry, Stacked
from bench.protocol.batched import Batching
from bench.records.schema import TIMED

MOST_MEMBERS = 96
"""Larger batches gain little: on an H200 a step of 256 MNIST networks takes 6.3 ms, and of four batches of 64 7.4 ms."""
MOST_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}
"""The most parameters of all members of a batch.  A larger one gains nothing on a CPU, since its temporaries leave the
caches; a GPU is bounded by its memory, of which a parameter with its slots and tangents takes some tens of bytes."""


def batch_key(spec: Spec) -> Mapping[str, Any]:
    """Returns what a run has to share with others to be trained with them.

    Raises:
        CannotStackError: for a run that is trained alone, with the reason.
    """
    if spec["budget"]["unit"] in TIMED:
        raise CannotStackError("its budget is in seconds, which are each run's own")
    common = {key: value for key, value in spec.items() if key not in ("method", "seed", "shock")}
    batch = _alike(spec["method"])
    if spec.get("engine") == GRAPH and not batching_of(spec["method"]).captures:
        raise CannotStackError("its engine is graph, and its method's batch has eager steps alone")
    return common | {"batch": batch}


def _alike(part: Spec) -> Mapping[str, Any]:
    """Returns what methods of one batch share, those that they repeat included."""
    entry: MethodEntry = entry_of("method", part)
    batching = batching_of(part)
    build: Any = batching.build
    options = options_in(part)
    over: dict[str, Any] = {}
    if entry.repeats is not None:
        over["over"] = _alike(repeated := options.pop("over"))
        if not batching.repeats(entry_of("method", repeated).batching):
            raise CannotStackError("the method that it repeats has no batch of trainings at different steps")
    alike = batching.alike(entry.options.model_validate({**options, **dict.fromkeys(over)}))
    return {"build": f"{build.__module__}.{build.__qualname__}", "alike": alike, **over}


def batching_of(part: Spec) -> Batching:
    """Returns how runs of a method are trained together.  Raises `CannotStackError` for one that has no batch."""
    entry: MethodEntry = entry_of("method", part)
    if entry.batching is None:
        raise CannotStackError("its method has no batch")
    return entry.batching


def most_members(spec: Spec, data_root: Path | None) -> int:
    """Returns how many runs of one network are worth a batch.

    Raises:
        CannotStackError: for a network that cannot be stacked, with the reason.
    """
    device = spec["device"] if torch.cuda.is_available() else "cpu"  # nodes may have a GPU where this machine has none
    task, _ = task_of(spec, torch.device(device), data_root)
    models = [task.model(seed) for seed in (0, 1)]
    Stacked([task, task], models)
    elements = sum(parameter.numel() for parameter in models[0].parameters())
    return max(2, min(MOST_MEMBERS, MOST_ELEMENTS[torch.device(spec["device"]).type] // elements))
