"""What a data set is.  The data root, where its files lie, is `--root`, else $OHO_DATA, else `data/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from bench.protocol.streams import stream
from bench.protocol.task import Split
from bench.records.errors import DataError


class Loaded(NamedTuple):
    """A data set on the CPU, and what it is called in records and reports."""

    train: Split
    test: Split
    label: str
    outputs: int | None = None
    """Classes, characters, or numbers to predict; None is read off the training targets."""
    measured: int = 0
    """The first so many numbers of each input have mean 0 and deviation 1 made of them, by the training examples."""


def _always(root: Path) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """How to get one data set: `load(root)` returns its training and test split and their label, as `Loaded`.

    Inputs are floats (n, features), uint8 images (n, channels, height, width), or int64 characters (n, length).  The
    validation split is held out of the training split by the task.  `load` raises `DataError` where the data cannot be had.
    """

    description: str
    load: Callable[[Path], Loaded]
    kind: str = "classification"
    """What tasks it serves: classification, regression, language, or a name of your own objective's."""
    images: bool = False
    """Inputs are images, or flattened square ones."""
    ordered: bool = False
    """The validation split is the end of the training split, in the place of examples drawn from it."""
    training_examples: int | None = None
    """Their number, where it is known without reading the data."""
    present: Callable[[Path], bool] = _always
    """Whether the data root has it."""
    content: Callable[[Path], str] | None = None
    """Digits that change with the data, for data that users may change: they are part of a run's id."""


def data_root(root: Path | None = None) -> Path:
    """The folder that holds the data sets."""
    return root or Path(os.environ.get("OHO_DATA", "data"))


def load(data_set: DataSet, root: Path | None = None) -> Loaded:
    """Returns both splits of a data set on the CPU, downloaded into the root if they are not there.

    They are read once a process; nobody writes into them.
    """
    return _load(data_set, data_root(root), content_of(data_set, root))


@cache
def _load(data_set: DataSet, root: Path, content: str | None) -> Loaded:
    return data_set.load(root)


def training_examples(data_set: DataSet, root: Path | None = None) -> int:
    """Returns how many examples the training split has, of which the validation split is held out."""
    known = data_set.training_examples
    return len(load(data_set, root).train.targets) if known is None else known


def content_of(data_set: DataSet, root: Path | None = None) -> str | None:
    """Returns digits that change with the data; None where the data cannot change."""
    return data_set.content(data_root(root)) if data_set.content else None


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """A training split and a validation split of `count` examples, drawn without replacement by `seed`.

    Raises:
        DataError: where no example would be left for training.
    """
    return _divided(split, count, torch.randperm(len(split.targets), generator=stream(seed, "hold out")))


def hold_out_end(split: Split, count: int) -> tuple[Split, Split]:
    """A training split and a validation split of the last `count` examples.  Raises as `hold_out` does."""
    return _divided(split, count, torch.arange(len(split.targets)).roll(count))


def _divided(split: Split, count: int, order: torch.Tensor) -> tuple[Split, Split]:
    """The first `count` places of the order are held out."""
    if count >= len(split.targets):
        raise DataError(f"{count} examples cannot be held out of {len(split.targets)}; set a smaller validation_size")
    rest, held = order[count:], order[:count]
    return Split(split.inputs[rest], split.targets[rest]), Split(split.inputs[held], split.targets[held])
