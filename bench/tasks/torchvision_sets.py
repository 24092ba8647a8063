"""Data sets of torchvision, in its layout, which are downloaded if they are missing.

CIFAR-10 is also read from an archive of JPEG images, cifar10-jpeg.tar.xz, and then has a label of its own.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from bench.protocol.task import Split
from bench.records.errors import DataError
from bench.tasks.data_sets import DataSet, Loaded
from bench.tasks.jpeg_archive import read_jpeg_archive

JPEG_ARCHIVE = "cifar10-jpeg.tar.xz"
CLASSES = 10
"""The number of classes of each of torchvision's data sets here."""


def _torchvision(class_name: str, label: str, convert: Callable[[Tensor], Tensor]) -> Callable[[Path], Loaded]:
    """Returns a loader of one of torchvision's data sets; `convert` makes inputs of its raw bytes."""

    def load_both(root: Path) -> Loaded:
        for archive in sorted((root / PLACES[class_name]).glob("*.gz")):
            _check_unpacked(archive)
        train, test = (_torchvision_split(class_name, root, convert, part) for part in ("training", "test"))
        return Loaded(train, test, label)

    return load_both


def _torchvision_split(class_name: str, root: Path, convert: Callable[[Tensor], Tensor], part: str) -> Split:
    from torchvision import datasets

    make = partial(getattr(datasets, class_name), str(root), train=part == "training")
    try:
        raw = make(download=False)
    except Exception as error:  # a damaged file may raise any exception
        if not str(error).startswith("Dataset not found"):
            raise _damaged(root / PLACES[class_name], f"{part} split: {_in_words(error)}") from None
        raw = _download(make, class_name, root)
    targets = torch.as_tensor(raw.targets, dtype=torch.int64)
    if not 0 < len(targets) == len(raw.data):
        raise _damaged(root / PLACES[class_name], f"{part} split: {len(raw.data)} images and {len(targets)} labels")
    if not 0 <= int(targets.min()) <= int(targets.max()) < CLASSES:
        raise _damaged(root / PLACES[class_name], f"{part} split: a label is not one of 0 to {CLASSES - 1}")
    return Split(convert(torch.as_tensor(raw.data)), targets)


def _download(make: Callable, class_name: str, root: Path):
    place = root / PLACES[class_name]
    state = "incomplete or damaged" if place.exists() else "not"
    try:
        return make(download=True)
    except Exception as error:  # torchvision may raise URLError, RuntimeError or OSError, some over several lines
        with contextlib.suppress(OSError):  # the empty folders that it has made
            place.rmdir()
            for folder in place.relative_to(root).parents[:-1]:
                (root / folder).rmdir()
        raise DataError(
            f"{class_name} is {state} in {root.resolve()} and cannot be downloaded ({_in_words(error)}); "
            f"set OHO_DATA or --root to a folder that holds {PLACES[class_name]}"
        ) from None


def _check_unpacked(archive: Path) -> None:
    """Raises `DataError` unless an unpacked file has the check sum and the length modulo 2^32 in its archive's last bytes.

    torchvision knows the archive's own hash, but checks it only when it downloads.
    """
    path = archive.with_suffix("")
    if path.exists():
        content = path.read_bytes()
        if struct.pack("<II", zlib.crc32(content), len(content) % 2**32) != archive.read_bytes()[-8:]:
            raise _damaged(path, f"it is not what {archive.name} holds")


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path.resolve()}: damaged ({reason}); remove it, then repeat the command to fetch it again")


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _flat_fractions(raw: Tensor) -> Tensor:
    """Converts bytes (n, height, width) to floats (n, features) in [0, 1]."""
    return raw.flatten(1).to(torch.float32) / 255


def _channels_first(raw: Tensor) -> Tensor:
    """Converts bytes (n, height, width, channels) to bytes (n, channels, height, width)."""
    return raw.permute(0, 3, 1, 2).contiguous()


def _cifar10(root: Path) -> Loaded:
    if not (root / PLACES["CIFAR10"]).exists() and (root / JPEG_ARCHIVE).exists():
        return Loaded(*read_jpeg_archive(root / JPEG_ARCHIVE), "CIFAR-10 (JPEG)")
    return _torchvision("CIFAR10", "CIFAR-10", _channels_first)(root)


PLACES = {"MNIST": "MNIST/raw", "FashionMNIST": "FashionMNIST/raw", "CIFAR10": "cifar-10-batches-py"}
"""Where torchvision keeps a data set under the root."""


def _has_raw(class_name: str) -> Callable[[Path], bool]:
    return lambda root: (root / PLACES[class_name] / "train-images-idx3-ubyte").exists()


def _has_cifar10(root: Path) -> bool:
    return (root / PLACES["CIFAR10"]).exists() or (root / JPEG_ARCHIVE).exists()


def _images(description: str, examples: int, load: Callable[[Path], Loaded], present: Callable[[Path], bool]) -> DataSet:
    return DataSet(description=description, images=True, training_examples=examples, load=load, present=present)


MNIST = _images(
    "70,000 28x28 images of digits", 60_000, _torchvision("MNIST", "MNIST", _flat_fractions), _has_raw("MNIST")
)
FASHION_MNIST = _images(
    "70,000 28x28 images of clothes",
    60_000,
    _torchvision("FashionMNIST", "Fashion-MNIST", _flat_fractions),
    _has_raw("FashionMNIST"),
)
CIFAR10 = _images("60,000 32x32 colour images of animals and vehicles", 50_000, _cifar10, _has_cifar10)
