"""CIFAR-10 from a JPEG archive and from torchvision's layout, and archives that are broken."""

import numpy as np
import pytest
import torch
from images import jpeg, noise, write_archive, write_classes
from typer.testing import CliRunner

from bench.cli import app
from bench.protocol import Split
from bench.records.errors import DataError
from bench.tasks.data_sets import hold_out, load
from bench.tasks.scikit_learn_sets import DIGITS
from bench.tasks.torchvision_sets import CIFAR10, PLACES

COLOURS = {"cat": (200, 30, 90), "dog": (10, 240, 60), "ship": (120, 120, 250)}


def plain(colour, shade=0):
    """One colour all over, which JPEG keeps to within a few levels."""
    return (torch.tensor(colour, dtype=torch.uint8)[:, None, None] - shade).expand(3, 32, 32).contiguous()


def test_digits_are_those_of_scikit_learn():
    """Read from its file, without the library."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, targets = (torch.from_numpy(array) for array in datasets.load_digits(return_X_y=True))
    train, _ = hold_out(Split((images / 16).float(), targets), 360, seed=0)
    found = load(DIGITS).train
    assert torch.equal(found.inputs, train.inputs)
    assert torch.equal(found.targets, train.targets)


def test_an_archive_is_read_in_the_order_of_names_whatever_the_order_it_is_stored_in(tmp_path):
    files = [
        (f"{part}/{name}/{index:04}.jpg", plain(colour, shade=index))
        for part, count in (("test", 2), ("train", 4))
        for name, colour in reversed(COLOURS.items())
        for index in reversed(range(count))
    ]
    write_archive(tmp_path, files)
    for split, count in zip(load(CIFAR10, tmp_path)[:2], (4, 2), strict=True):
        expected = torch.stack([plain(colour, shade) for colour in COLOURS.values() for shade in range(count)])
        assert split.inputs.dtype == torch.uint8
        assert (split.inputs.int() - expected.int()).abs().max() <= 3
        assert split.targets.tolist() == [0] * count + [1] * count + [2] * count
    assert load(CIFAR10, tmp_path).label == "CIFAR-10 (JPEG)"


def test_the_original_comes_before_the_archive_and_under_another_name(tmp_path, monkeypatch):
    class Original:
        def __init__(self, root, train, download):
            pixels = np.zeros((4 if train else 2, 32, 32, 3), np.uint8)
            pixels[..., 1] = 7
            self.data, self.targets = pixels, [0, 1] * (len(pixels) // 2)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Original)
    write_classes(tmp_path, train=1, test=1)
    (tmp_path / PLACES["CIFAR10"]).mkdir()
    train, test, *_ = load(CIFAR10, tmp_path)
    assert load(CIFAR10, tmp_path).label == "CIFAR-10"
    assert train.inputs.shape == (4, 3, 32, 32)
    assert test.inputs[0].amax((1, 2)).tolist() == [0, 7, 0]


def rewrite(change):
    def damage(root):
        path = write_classes(root, train=8, test=8)
        path.write_bytes(change(path.read_bytes()))

    return damage


def flip_middle(content):
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 8]) + content[middle + 8 :]


IMAGE = noise(1, 32, seed=0)[0]
DAMAGES = {
    "half of it": rewrite(lambda content: content[: len(content) // 2]),
    "last bytes missing": rewrite(lambda content: content[:-10]),
    "flipped bytes": rewrite(flip_middle),
    "no archive": rewrite(lambda content: b"<html>not found</html>"),
    "empty file": rewrite(lambda content: b""),
    "no images": lambda root: write_archive(root, [("readme.txt", b"hello")]),
    "no test images": lambda root: write_archive(root, [("train/cat/0.jpg", IMAGE)]),
    "other classes": lambda root: write_archive(root, [("train/cat/0.jpg", IMAGE), ("test/dog/0.jpg", IMAGE)]),
    "no JPEG": lambda root: write_archive(root, [("train/cat/0.jpg", b"GIF89a"), ("test/cat/0.jpg", IMAGE)]),
    "image cut short": lambda root: write_archive(
        root, [("train/cat/0.jpg", jpeg(IMAGE)[:900]), ("test/cat/0.jpg", IMAGE)]
    ),
    "empty image": lambda root: write_archive(root, [("train/cat/0.jpg", b""), ("test/cat/0.jpg", IMAGE)]),
    "other size": lambda root: write_archive(
        root, [("train/cat/0.jpg", IMAGE), ("train/cat/1.jpg", IMAGE[:, :9]), ("test/cat/0.jpg", IMAGE)]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_one_line_that_names_it(damage, tmp_path):
    DAMAGES[damage](tmp_path)
    with pytest.raises(DataError) as error:
        load(CIFAR10, tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/cifar10-jpeg.tar.xz: ")
    assert "replace it" in str(error.value)


def test_the_command_line_shows_the_archive_and_reports_damage_in_one_line(tmp_path):
    def row():
        answer = CliRunner().invoke(app, ["data", "list", "--root", str(tmp_path)])
        return next(line for line in answer.output.splitlines() if "cifar10" in line)

    assert "missing" in row()
    path = write_classes(tmp_path, train=2, test=1)
    assert "present" in row()
    path.write_bytes(path.read_bytes()[:-20])
    answer = CliRunner().invoke(app, ["data", "fetch", "cifar10", "--root", str(tmp_path)])
    assert answer.exit_code == 2
    assert len(answer.output.strip().splitlines()) == 1
    assert str(path) in answer.output


def test_holding_out_everything_is_refused(tmp_path):
    write_classes(tmp_path, train=2, test=1)
    train, *_ = load(CIFAR10, tmp_path)
    assert len(hold_out(train, 5, seed=0)[0].targets) == 1
    with pytest.raises(DataError, match="validation_size"):
        hold_out(train, 6, seed=0)
