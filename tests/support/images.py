"""Small archives of JPEG images in the layout of the CIFAR-10 one."""

import io
import tarfile

import torch
from torchvision.io import encode_jpeg

from bench.tasks.torchvision_sets import JPEG_ARCHIVE


def noise(count, size, seed):
    return torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def jpeg(image):
    return bytes(encode_jpeg(image, quality=95).tolist())


def write_archive(root, files):
    """`files` are (name, image or bytes) in the order they are stored in."""
    path = root / JPEG_ARCHIVE
    with tarfile.open(path, "w:xz") as archive:
        for name, content in files:
            if isinstance(content, torch.Tensor):
                content = jpeg(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_classes(root, *, train, test, size=32, classes=("cat", "dog", "ship")):
    """An archive of noise with `train` and `test` images of each class."""
    files = []
    for part, count in (("train", train), ("test", test)):
        for place, name in enumerate(classes):
            images = noise(count, size, seed=100 * place + count)
            files += [(f"{part}/{name}/{index:04}.jpg", image) for index, image in enumerate(images)]
    return write_archive(root, files)
