"""Data sets, whose files lie in the data root: `--root`, or else $OHO_DATA, or else `data/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from bench.protocol.streams import stream
from bench.protocol.task import Split
from bench.records.errors import DataError

KEPT = 8
"""How many data sets a process keeps in memory."""


class Loaded(NamedTuple):
    """A data set on the CPU; `label` is its name in records and reports."""

    train: Split
    test: Split
    label: str
    outputs: int | None = None
    """The number of classes, characters, or numbers to predict; if it is None, the training targets determine it."""
    measured: int = 0
    """How many leading features are standardised by the training split's mean and deviation."""
    columns: tuple[str, ...] = ()
    """The names of a table's inputs, then of its target.  Its numbers are in float64 until they are standardised."""


def _always(root: Path) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set, of which `load(root)` returns the training split, the test split and the label, as `Loaded`.

    Inputs are floats (n, features), uint8 images (n, channels, height, width), or int64 characters (n, length).  The
    task holds the validation split out of the training split.  `load` raises `DataError` if it cannot provide the data.
    """

    description: str
    load: Callable[[Path], Loaded]
    kind: str = "classification"
    """The kind of tasks it serves: classification, regression, language, or the kind of an objective of your own."""
    images: bool = False
    """Whether inputs are images or flattened square images."""
    ordered: bool = False
    """Whether the validation split is the end of the training split instead of examples drawn from it."""
    training_examples: int | None = None
    """Their number, if it is known without reading the data."""
    present: Callable[[Path], bool] = _always
    """Returns whether the data root has the data set."""
    content: Callable[[Path], str] | None = None
    """Returns digits that change with the data, for data that users may change; they are part of a run's id."""


def data_root(root: Path | None = None) -> Path:
    """Returns the folder that holds the data sets."""
    return root or Path(os.environ.get("OHO_DATA") or "data")


def load(data_set: DataSet, root: Path | None = None) -> Loaded:
    """Returns both splits of a data set on the CPU, after downloading them into the root if they are not there.

    A process reads them once, as long as it uses no more than `KEPT` data sets, and must not write into them.
    """
    return _load(data_set, data_root(root), content_of(data_set, root))


@lru_cache(maxsize=KEPT)
def _load(data_set: DataSet, root: Path, content: str | None) -> Loaded:
    return data_set.load(root)


def training_examples(data_set: DataSet, root: Path | None = None) -> int:
    """Returns how many examples the training split has, of which the validation split is held out."""
    known = data_set.training_examples
    return len(load(data_set, root).train.targets) if known is None else known


def content_of(data_set: DataSet, root: Path | None = None) -> str | None:
    """Returns digits that change with the data, or None if the data cannot change."""
    return data_set.content(data_root(root)) if data_set.content else None


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Returns a training split and a validation split of `count` examples, drawn without replacement by `seed`.

    Raises:
        DataError: if no example would be left for training.
    """
    return _divided(split, count, torch.randperm(len(split.targets), generator=stream(seed, "hold out")))


def hold_out_end(split: Split, count: int) -> tuple[Split, Split]:
    """Returns a training split and a validation split of the last `count` examples.  Raises as `hold_out` does."""
    return _divided(split, count, torch.arange(len(split.targets)).roll(count))


def _divided(split: Split, count: int, order: torch.Tensor) -> tuple[Split, Split]:
    """Returns the rest, and the examples at the first `count` places of the order, which are held out."""
    if count >= len(split.targets):
        raise DataError(f"{count} examples cannot be held out of {len(split.targets)}; set a smaller validation_size")
    rest, held = order[count:], order[:count]
    return Split(split.inputs[rest], split.targets[rest]), Split(split.inputs[held], split.targets[held])
