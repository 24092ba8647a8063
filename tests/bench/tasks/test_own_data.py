"""Data of a user's own: folders of images, tables, and a task in a file."""

import shutil

import pandas
import pytest
import torch
from faults import command
from helpers import ROOT, experiment, run_one
from torchvision.io import write_png

from bench.experiment.expansion import load_experiment
from bench.experiment.spec import task_of
from bench.experiment.yaml_file import ConfigError
from bench.records import Status, run_id
from bench.records.errors import DataError
from bench.tasks import image_folder

CPU = torch.device("cpu")
STREAM = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def own_root(tmp_path, monkeypatch):
    monkeypatch.setenv("OHO_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()


def write_images(folder, sizes=(8, 8)):
    """Bright and dark noise: thirty of each for training, five for the test."""
    for part, count in (("train", 30), ("test", 5)):
        for name, least in (("bright", 128), ("dark", 0)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = torch.randint(least, least + 128, (3, *sizes), generator=STREAM).to(torch.uint8)
                write_png(image, str(folder / part / name / f"{number:02}.png"))


def images_spec(folder, *overrides):
    wanted = ["task={name: image-folder, path: lamps, batch_size: 16, validation_batch_size: 8, width: 4}", *overrides]
    return experiment(folder, "adam", overrides=[*wanted, "methods.0.lr=0.01", "budget.steps=30"]).specs[0]


class TestImageFolder:
    @pytest.mark.parametrize("model", ["cnn", "mlp", "resnet18"])
    def test_every_model_learns_it(self, model, tmp_path):
        write_images(tmp_path / "data/lamps")
        outcome = run_one(images_spec(tmp_path, f"task.model={model}", "evaluations=1"), tmp_path / "runs")
        assert outcome.status is Status.BUDGET_REACHED, outcome.message
        assert outcome.final["incumbent_test_error"] <= 0.1
        assert outcome.environment["data"] == "lamps"

    def test_a_run_is_that_of_the_files_wherever_they_lie(self, tmp_path):
        write_images(tmp_path / "data/lamps")
        spec = images_spec(tmp_path)
        shutil.copytree(tmp_path / "data/lamps", tmp_path / "elsewhere")
        elsewhere = images_spec(tmp_path, f"task.path={tmp_path / 'elsewhere'}")
        assert run_id(elsewhere) == run_id(spec)
        (tmp_path / "data/lamps/train/dark/00.png").unlink()
        assert run_id(images_spec(tmp_path)) != run_id(spec)
        with pytest.raises(DataError, match=r"the images in lamps was changed \(its hash is"):
            task_of(spec, CPU, None)

    def test_images_are_decoded_once(self, tmp_path, monkeypatch):
        write_images(tmp_path / "data/lamps")
        before = task_of(images_spec(tmp_path), CPU, None)[0].train.inputs
        (kept,) = (tmp_path / "data/image-folder").iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(image_folder, "_decoded", None)
            assert len(image_folder._load("lamps", None, tmp_path / "data").train.targets) == 60
        kept.write_bytes(b"damaged")
        assert torch.equal(task_of(images_spec(tmp_path), CPU, None)[0].train.inputs, before)

    def test_images_of_two_sizes_need_a_size(self, tmp_path):
        write_images(tmp_path / "data/lamps")
        odd = tmp_path / "data/lamps/train/dark/07.png"
        write_png(torch.zeros(3, 6, 9, dtype=torch.uint8), str(odd))
        with pytest.raises(ConfigError, match=r"07.png: has 9x6 pixels, and .* has 8x8 pixels; give `size`"):
            images_spec(tmp_path)
        task, _ = task_of(images_spec(tmp_path, "task.size=5"), CPU, None)
        assert task.train.inputs.shape == (48, 3, 5, 5)

    @pytest.mark.parametrize("damage", ["no folder", "no image", "a class of the test alone"])
    def test_what_cannot_be_read_is_told_at_its_line(self, damage, tmp_path):
        told = {"no folder": "lamps: no such folder; a path is", "no image": "00.png: not a whole JPEG, PNG",
                "a class of the test alone": "no class of the test alone"}[damage]  # fmt: skip
        if damage != "no folder":
            write_images(tmp_path / "data/lamps")
        if damage == "no image":
            (tmp_path / "data/lamps/train/dark/00.png").write_text("<html>")
        if damage == "a class of the test alone":
            shutil.rmtree(tmp_path / "data/lamps/train/dark")
        path = tmp_path / "own.yaml"
        images_spec_text = experiment_text(tmp_path).replace("digits-mlp, selection_epochs: 1", "image-folder, path: lamps")
        path.write_text(images_spec_text)
        with pytest.raises(ConfigError, match=rf"own.yaml:3:28: .*{told}"):
            load_experiment(path)


def experiment_text(folder):
    experiment(folder, "fixed")
    return (folder / "small.yaml").read_text()


def flowers(count=120):
    """Length decides the kind, and so does the meadow, a little."""
    length = torch.rand(count, generator=STREAM).tolist()
    return pandas.DataFrame({
        "length": length, "meadow": [("north", "south", "east")[round(3 * x) % 3] for x in length],
        "count": range(count), "wet": [x > 0.3 for x in length],
        "kind": ["rose" if x > 0.5 else "daisy" for x in length], "height": [3 * x + 1 for x in length],
    })  # fmt: skip


def table_spec(folder, *overrides, target="kind", kind="classification"):
    options = f"target: {target}, kind: {kind}, batch_size: 16, validation_batch_size: 8"
    task = f"task={{name: table, path: flowers.csv, {options}}}"
    return experiment(folder, "adam", overrides=[task, "methods.0.lr=0.02", "evaluations=1", *overrides]).specs[0]


MISTAKES = {
    "no file": (None, {}, r"flowers.csv: cannot be read \(No such file or directory\); a path is absolute or relative"),
    "no target": (lambda frame: frame.drop(columns="kind"), {}, r"has no column 'kind'; it has: length, meadow, count"),
    "missing": (lambda frame: frame.assign(length=frame.length.where(frame.length > 0.1)), {}, r"length \(\d+\); fill"),
    "words for numbers": (lambda frame: frame, {"kind": "regression"}, r"'kind' holds no numbers; give `kind: class"),
    "numbers for classes": (lambda frame: frame, {"target": "length"}, r"'length' has 120 classes in 120 rows; give"),
    "names": (lambda frame: frame.assign(meadow=[f"m{x}" for x in range(120)]), {}, r"'meadow' has 120 categories; at"),
    "nothing": (lambda frame: frame[["kind"]], {}, r"one or more columns besides the target, and rows, are expected"),
}  # fmt: skip


class TestTable:
    @pytest.mark.parametrize(("target", "kind", "good"), [("kind", "classification", 0.2), ("height", "regression", 0.5)])
    def test_it_is_learned(self, target, kind, good, tmp_path):
        flowers().to_csv(tmp_path / "data/flowers.csv", index=False)
        spec = table_spec(tmp_path, target=target, kind=kind)
        outcome = run_one(spec, tmp_path / "runs")
        assert outcome.status is Status.BUDGET_REACHED, outcome.message
        assert outcome.final["incumbent_test_error"] < good
        assert spec["task"]["units"]["metric"] == {
            "classification": "classification error", "regression": "root mean squared error"}[kind]  # fmt: skip

    def test_numbers_are_standardised_and_categories_become_columns(self, tmp_path):
        flowers().to_csv(tmp_path / "data/flowers.csv", index=False)
        task, test = task_of(table_spec(tmp_path), CPU, None)
        assert task.train.inputs.shape == (77, 3 + 3 + 2)  # length, count, height; three meadows; wet or not
        torch.testing.assert_close(task.train.inputs[:, :3].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        assert set(task.train.inputs[:, 3:].unique().tolist()) == {0.0, 1.0}
        assert torch.equal(task.train.inputs[:, 3:6].sum(1), torch.ones(77))
        assert len(test.targets) == 24

    @pytest.mark.parametrize("column", ["length", "height"])
    def test_numbers_far_from_zero_keep_what_is_close_together(self, column, tmp_path):
        tasks, frame = [], flowers().assign(length=0, height=0)
        for offset in (0, 1764000000):  # seconds, as a clock has them; a float32 there is a multiple of 128
            frame[column] = range(offset, offset + 120)
            frame.to_csv(tmp_path / "data/flowers.csv", index=False)
            tasks.append(task_of(table_spec(tmp_path, target="height", kind="regression"), CPU, None)[0])
        for close, far in zip(*((*task.train, *task.validation) for task in tasks), strict=True):
            assert far.dtype == torch.float32
            torch.testing.assert_close(far, close)

    @pytest.mark.parametrize("column", ["length", "height"])
    @pytest.mark.parametrize("row", [3, 13, 7], ids=["training", "validation", "test"])
    def test_a_number_beyond_single_precision_is_one_line(self, row, column, tmp_path):
        """In the training split it is the deviation that is too large."""
        frame = flowers()
        frame.loc[row, column] = 1e300
        frame.to_csv(tmp_path / "data/flowers.csv", index=False)
        spec = table_spec(tmp_path, target="height", kind="regression")
        with pytest.raises(DataError, match=f"^flowers.csv: column '{column}' is not finite in single .*numbers$"):
            task_of(spec, CPU, None)

    def test_a_changed_file_is_a_new_run(self, tmp_path):
        flowers().to_csv(tmp_path / "data/flowers.csv", index=False)
        before = run_id(table_spec(tmp_path))
        assert run_id(table_spec(tmp_path)) == before
        flowers(110).to_csv(tmp_path / "data/flowers.csv", index=False)
        assert run_id(table_spec(tmp_path)) != before

    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_what_cannot_be_used_is_one_line(self, mistake, tmp_path):
        change, options, told = MISTAKES[mistake]
        if change:
            change(flowers()).to_csv(tmp_path / "data/flowers.csv", index=False)
        with pytest.raises(ConfigError, match=told) as error:
            table_spec(tmp_path, **options)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("--set task=")

    def test_sizes_are_those_of_the_file(self, tmp_path):
        flowers().to_csv(tmp_path / "data/flowers.csv", index=False)
        with pytest.raises(ConfigError, match=r"validation_size: at most 95 is allowed, table has 96 training examples"):
            table_spec(tmp_path, "task.validation_size=96")
        with pytest.raises(ConfigError, match=r"test_fraction=0.999 of 120 rows leaves none for training"):
            table_spec(tmp_path, "task.test_fraction=0.999")


def test_a_task_in_a_file_is_run_from_another_folder_and_reported(tmp_path, monkeypatch):
    """As a reader does it: the example, a configuration beside it, the command line, a report's table."""
    (tmp_path / "mine").mkdir()
    shutil.copy(ROOT / "examples/own_task.py", tmp_path / "mine")
    text = experiment_text(tmp_path).replace("digits-mlp, selection_epochs: 1", "./own_task.py:WINES")
    (tmp_path / "mine/wines.yaml").write_text(text.replace("{name: fixed}", "{name: fixed, lr: 0.2}"))
    monkeypatch.chdir(tmp_path)
    run = command("run", "mine/wines.yaml", "--out", "runs", "--device", "cpu")
    assert run.exit_code == 0, run.stderr
    (tmp_path / "mine/own_task.py").unlink()  # the results keep it
    drawn = command("figure", "distribution", "runs", "-o", "wines.pdf")
    assert drawn.exit_code == 0, drawn.stderr
    row = pandas.read_csv(tmp_path / "wines.csv").iloc[0]
    assert row["method"] == "fixed"
    assert 0.2 < row["test_loss"] < 0.7  # smoothing keeps the loss above 0.29; ln 3 is a guess
    (spec,) = (path for path in (tmp_path / "runs").glob("*/spec.json"))
    assert '"metric": "doubt"' in spec.read_text()
