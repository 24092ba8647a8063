"""Images in a user's own folder, train/CLASS/* and test/CLASS/*, which are decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.protocol.task import Split
from bench.records.errors import DataError
from bench.records.files import replacing_shared
from bench.tasks.data_sets import DataSet, Loaded
from bench.tasks.entry import Facts, TaskEntry
from bench.tasks.image_tasks import convolutional, perceptron, residual
from bench.tasks.options import ConvolutionOptions, PerceptronOptions

CACHE = "image-folder"
"""The folder under the data root that keeps decoded images, by the hash of their files."""
DIGITS_OF_HASH = 16
MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": convolutional, "mlp": perceptron, "resnet18": partial(residual, 18)}


class ImageFolderOptions(PerceptronOptions, ConvolutionOptions):
    """`path` is a folder with train/CLASS/* and test/CLASS/*, absolute or relative to the data root.  If images differ in
    size, `size` must give the pixels of a side to which all are resized.  `model` is a convolutional network with `blocks`
    blocks, a tanh network with `hidden_layers` layers, or ResNet-18; `width` is its number of channels or units."""

    path: str = Field(min_length=1)
    size: int | None = Field(default=None, ge=1)
    model: Literal["cnn", "mlp", "resnet18"] = "cnn"


@cache
def image_folder(path: str, size: int | None) -> DataSet:
    """Returns the data set of one folder."""
    return DataSet(
        description=f"the images in {path}", images=True, load=partial(_load, path, size),
        present=lambda root: (root / path).is_dir(), content=partial(_content, path),
    )  # fmt: skip


def _content(path: str, root: Path) -> str:
    folder = root / path
    files = _files(folder)
    states = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _hash_of(folder, tuple(files), states)


@lru_cache(maxsize=8)
def _hash_of(folder: Path, files: tuple[Path, ...], states: tuple[tuple[int, int], ...]) -> str:
    """Returns digits that depend on all names and bytes; files whose `states` have not changed are not read again."""
    digest = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder)}\0{content}\0".encode())
    return digest.hexdigest()[:DIGITS_OF_HASH]


def _files(folder: Path) -> list[Path]:
    """Returns all images, sorted by name."""
    if not folder.is_dir():
        remedy = "a path is absolute or relative to the data root, --root or OHO_DATA"
        raise DataError(f"{folder.resolve()}: no such folder; {remedy}")
    found = [path for part in ("train", "test") for path in folder.glob(f"{part}/*/*")]
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    classes = {part: {path.parent.name for path in files if path.parents[1].name == part} for part in ("train", "test")}
    if not classes["test"] or not classes["train"] >= classes["test"]:
        expected = "images train/CLASS/* and test/CLASS/* are expected, no class of the test alone"
        raise DataError(f"{folder.resolve()}: {expected}")
    return files


def _load(path: str, size: int | None, root: Path) -> Loaded:
    folder = root / path
    kept = root / CACHE / f"{_content(path, root)}{f'-{size}' if size else ''}.pt"
    tensors = _kept(kept)
    if tensors is None:
        tensors = _decoded(folder, size)
        with suppress(OSError):  # if the data root cannot be written, each process decodes them
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing_shared(kept) as file:
                torch.save(tensors, file)
    train, test = (Split(tensors[f"{part} inputs"], tensors[f"{part} targets"]) for part in ("train", "test"))
    return Loaded(train, test, folder.resolve().name)


def _kept(path: Path) -> dict[str, Tensor] | None:
    """Returns what was decoded before, or None if nothing was or the file is damaged."""
    try:
        return torch.load(path, weights_only=True)
    except Exception:  # a damaged file may raise any exception
        return None


def _decoded(folder: Path, size: int | None) -> dict[str, Tensor]:
    files, tensors = _files(folder), {}
    first = _image(files[0], size)
    classes = {name: place for place, name in enumerate(sorted({file.parent.name for file in files}))}
    for part in ("train", "test"):
        own = [file for file in files if file.parents[1].name == part]
        inputs = first.new_empty(len(own), *first.shape)
        for place, file in enumerate(own):
            image = _image(file, size)
            if image.shape != first.shape:
                sizes = f"{_pixels(image)}, and {files[0]} has {_pixels(first)}"
                raise DataError(f"{file}: has {sizes}; give `size`, the pixels of a side that all images get")
            inputs[place] = image
        tensors[f"{part} inputs"] = inputs
        tensors[f"{part} targets"] = torch.tensor([classes[file.parent.name] for file in own])
    return tensors


def _pixels(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]} pixels"


def _image(file: Path, size: int | None) -> Tensor:
    """Returns the bytes (3, height, width) of one image, resized if a size is given."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.functional import resize

    try:
        image = decode_image(torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except (OSError, RuntimeError, ValueError):  # ValueError: an empty file
        raise DataError(f"{file}: not a whole JPEG, PNG, GIF or WebP image; replace it, or remove it") from None
    if image.dim() != 3:
        raise DataError(f"{file}: an animation; one image is expected")
    return resize(image, [size, size], antialias=True) if size else image


def _model(options: ImageFolderOptions, facts: Facts) -> nn.Module:
    return MODELS[options.model](options, facts)


IMAGE_FOLDER = TaskEntry(
    description="images in a folder of your own, train/CLASS/* and test/CLASS/*, a fifth held out for validation",
    data=lambda options: image_folder(options.path, options.size),
    defaults=ImageFolderOptions.model_construct(batch_size=32, validation_batch_size=32, width=32, hidden_layers=2),
    model=_model,
    images=True,
)
