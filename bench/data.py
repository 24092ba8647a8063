"""Data sets by name, as whole splits of tensors.  The data root is `--root`, else $OHO_DATA, else `data/`.

digits ships with scikit-learn; the others have torchvision's layout and download, and are fetched where they are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from bench.streams import stream
from bench.tasks import Split


class DataError(Exception):
    """A data set that cannot be had; the message says what to do."""


@dataclass(frozen=True)
class DataSet:
    """How to get one data set.  `load` returns (training, test) inputs in [0, 1] and targets."""

    description: str
    load: Callable[[Path], tuple[Split, Split]]
    present: Callable[[Path], bool]


def data_root(root: Path | None = None) -> Path:
    """The folder that holds the data sets."""
    return root or Path(os.environ.get("OHO_DATA", "data"))


def load(name: str, root: Path | None = None) -> tuple[Split, Split]:
    """Training and test split of a data set on the CPU, downloaded into the root if it is not there.

    They are read once a process; nobody writes into them.
    """
    return _load(name, data_root(root))


@cache
def _load(name: str, root: Path) -> tuple[Split, Split]:
    return DATA_SETS[name].load(root)


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """A training split and a validation split of `count` examples, drawn without replacement by `seed`."""
    order = torch.randperm(len(split.targets), generator=stream(seed, "hold out"))
    rest, held = order[count:], order[:count]
    return Split(split.inputs[rest], split.targets[rest]), Split(split.inputs[held], split.targets[held])


def _digits(root: Path) -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    whole = Split(torch.tensor(raw.data, dtype=torch.float32) / 16, torch.tensor(raw.target, dtype=torch.int64))
    train, test = hold_out(whole, 360, seed=0)
    return train, test


def _torchvision(class_name: str) -> Callable[[Path], tuple[Split, Split]]:
    def load_both(root: Path) -> tuple[Split, Split]:
        return _torchvision_split(class_name, root, train=True), _torchvision_split(class_name, root, train=False)

    return load_both


def _torchvision_split(class_name: str, root: Path, *, train: bool) -> Split:
    from torchvision import datasets

    make = getattr(datasets, class_name)
    try:
        raw = make(str(root), train=train, download=False)
    except RuntimeError:
        raw = _download(make, class_name, root, train=train)
    inputs = torch.as_tensor(raw.data).flatten(1).to(torch.float32) / 255
    return Split(inputs, torch.as_tensor(raw.targets, dtype=torch.int64))


def _download(make: Callable, class_name: str, root: Path, *, train: bool):
    try:
        return make(str(root), train=train, download=True)
    except Exception as error:  # torchvision raises URLError, RuntimeError or OSError by turns, some over several lines
        reason = " ".join(str(error).split())
        raise DataError(
            f"{class_name} is not in {root.resolve()} and cannot be downloaded ({type(error).__name__}: {reason}); "
            f"set OHO_DATA or --root to a folder that holds {class_name}/raw"
        ) from None


def _has_raw(class_name: str) -> Callable[[Path], bool]:
    return lambda root: (root / class_name / "raw" / "train-images-idx3-ubyte").exists()


DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet("1,797 8x8 images of digits, shipped with scikit-learn", _digits, lambda root: True),
    "mnist": DataSet("70,000 28x28 images of digits", _torchvision("MNIST"), _has_raw("MNIST")),
    "fashion-mnist": DataSet(
        "70,000 28x28 images of clothes", _torchvision("FashionMNIST"), _has_raw("FashionMNIST")
    ),
}


