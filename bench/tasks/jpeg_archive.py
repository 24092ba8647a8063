"""Images in one `.tar.xz` archive, train/CLASS/NAME.jpg and test/CLASS/NAME.jpg, read without unpacking it."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from pathlib import Path

import torch
from torch import Tensor

from bench.protocol.task import Split
from bench.records.errors import DataError

MEMBER = re.compile(r"(train|test)/([^/]+)/[^/]+\.jpg")


def read_jpeg_archive(path: Path) -> tuple[Split, Split]:
    """Returns the training and test splits: inputs (n, 3, height, width) uint8 in the order of file names, targets (n,).

    A target is the place of its class in the sorted names of all classes.

    Raises:
        DataError: if the archive is truncated, damaged or laid out differently, or if images differ in size.
    """
    files = _read_files(path)
    classes = {part: sorted({name.split("/")[1] for name in files if name.startswith(part)}) for part in ("train", "test")}
    if not classes["train"] or classes["train"] != classes["test"]:
        raise _damaged(path, "train/CLASS/*.jpg and test/CLASS/*.jpg with the same classes are expected")
    train, test = (_decode(path, files, part, classes[part]) for part in ("train", "test"))
    return train, test


def _read_files(path: Path) -> dict[str, bytes]:
    """Returns the archive's images by name.  Decompressing the whole archive checks that its end is there."""
    try:
        with lzma.open(path) as file:
            content = io.BytesIO(file.read())
        with tarfile.open(fileobj=content, mode="r:") as archive:
            members = [member for member in archive if member.isfile() and MEMBER.fullmatch(member.name)]
            return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise _damaged(path, str(error)) from None


def _decode(path: Path, files: dict[str, bytes], part: str, classes: list[str]) -> Split:
    names = sorted(name for name in files if name.startswith(part))
    first = _image(path, names[0], files[names[0]])
    inputs = first.new_empty(len(names), *first.shape)
    for index, name in enumerate(names):
        image = _image(path, name, files[name])
        if image.shape != first.shape:
            sizes = f"{tuple(image.shape)}, that of {names[0]} is {tuple(first.shape)}"
            raise _damaged(path, f"the shape of {name} is {sizes}")
        inputs[index] = image
    places = {name: place for place, name in enumerate(classes)}
    return Split(inputs, torch.tensor([places[name.split("/")[1]] for name in names]))


def _image(path: Path, name: str, content: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except (RuntimeError, ValueError):  # ValueError: an empty file
        raise _damaged(path, f"{name} is not a whole JPEG image") from None


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: cannot be read ({' '.join(reason.split())}); replace it, or remove it to use another source")
