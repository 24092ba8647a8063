"""Data sets that are damaged or not there: docs/reliability.md, word for word."""

import gzip
import os
import re

import numpy as np
import pytest
from faults import command, the_line

from bench.records.errors import DataError
from bench.tasks.data_sets import load
from bench.tasks.torchvision_sets import MNIST


def idx(array):
    """The format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(root, train=30, test=10):
    raw, random_numbers = root / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(random_numbers.integers(0, 256, (count, 28, 28))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return raw


def cut(name, size):
    return lambda raw: os.truncate(raw / name, size)


def flip_a_byte(raw):
    path = raw / "train-images-idx3-ubyte"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    content = bytearray(path.read_bytes())
    content[5_000] ^= 255
    path.write_bytes(content)


def other_labels(raw):
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(10) + 3))


def fewer_labels(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(29) % 10))


DAMAGED = {
    "images cut": (cut("train-images-idx3-ubyte", 9_000), "training split: RuntimeError: shape "),
    "labels cut": (cut("t10k-labels-idx1-ubyte", 12), "test split: RuntimeError: shape "),
    "header cut": (cut("train-images-idx3-ubyte", 3), "training split: "),
    "empty file": (cut("train-labels-idx1-ubyte", 0), "training split: "),
    "a label too few": (fewer_labels, "training split: 30 images and 29 labels"),
    "labels out of range": (other_labels, "test split: a label is not one of 0 to 9"),
    "a flipped byte": (flip_a_byte, "it is not what train-images-idx3-ubyte.gz holds"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_data_are_one_line_that_names_them(damage, tmp_path):
    act, words = DAMAGED[damage]
    raw = write_mnist(tmp_path)
    act(raw)
    with pytest.raises(DataError) as error:
        load(MNIST, tmp_path)
    assert "\n" not in str(error.value)
    assert re.match(rf"{raw}[^:]*: damaged \({re.escape(words)}", str(error.value))
    assert str(error.value).endswith("; remove it, then repeat the command to fetch it again")


def test_whole_data_in_small_files_are_read(tmp_path):
    raw = write_mnist(tmp_path)
    for path in sorted(raw.iterdir()):
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    train, test, *_ = load(MNIST, tmp_path)
    assert (len(train.targets), len(test.targets)) == (30, 10)


OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def test_a_wrong_hash_is_told_apart_from_missing_data(tmp_path):
    """torchvision knows the hashes of CIFAR-10's files, looks at them each time, and would fetch them again."""
    words = ["data", "fetch", "cifar10", "--root", tmp_path]
    missing = the_line(command(*words, env=OFFLINE), 2)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"not what it was")
    damaged = the_line(command(*words, env=OFFLINE), 2)
    for _ in range(2):
        line = the_line(command("data", "fetch", "mnist", "--root", tmp_path, env=OFFLINE), 2)
        assert f"MNIST is not in {tmp_path} and cannot be downloaded (" in line
    assert not (tmp_path / "MNIST").exists()
    assert f"CIFAR10 is not in {tmp_path} and cannot be downloaded (" in missing
    assert f"CIFAR10 is incomplete or damaged in {tmp_path} and cannot be downloaded (" in damaged
