"""Each task trains, its units are in the spec, and another data set can take the place of its own."""

import math

import pytest
import torch
from helpers import experiment, run_one, same, write_config
from images import write_classes

from bench.experiment.expansion import load_experiment
from bench.experiment.spec import task_of
from bench.experiment.yaml_file import ConfigError
from bench.records import Status, read_run, run_id
from bench.records.errors import DataError
from bench.run.runner import run
from bench.tasks.data_sets import data_root, load
from bench.tasks.text_tasks import SHAKESPEARE, shakespeare
from bench.tasks.transformer import Transformer
from bench.tracking.wandb_sink import NoSink

CPU = torch.device("cpu")
SMALL_TEXT = ["task.context=16", "task.width=16", "task.heads=2", "task.layers=1", "task.validation_size=500"]


def named(folder, task, *methods, overrides=()):
    return experiment(folder, *methods, overrides=[f"task.name={task}", "evaluations=1", *overrides])


@pytest.fixture
def text_root():
    if not (data_root() / SHAKESPEARE).exists():
        pytest.skip(f"no {SHAKESPEARE} under {data_root()}; set OHO_DATA or `oho-bench data fetch shakespeare`")
    return data_root()


@pytest.mark.parametrize("method", ["adam", "oho-global", "oho-full"])
def test_diabetes_is_learned(method, tmp_path):
    spec = named(tmp_path, "diabetes-mlp", method, overrides=["methods.0.lr=0.02"]).specs[0]
    assert run_one(spec, tmp_path).status is Status.BUDGET_REACHED
    found = read_run(tmp_path / run_id(spec))
    untrained, trained = found.incumbents[0], found.incumbents[-1]
    assert 0.5 < trained["test_error"] < 0.9 < untrained["test_error"]  # 1 is a guess of the mean
    assert trained["test_error"] == pytest.approx(math.sqrt(trained["test_loss"]))
    assert found.units["metric_unit"] == "standard deviations of the training targets"


def test_measurements_and_targets_are_standardised_by_the_training_examples(tmp_path):
    task, test = task_of(named(tmp_path, "diabetes-mlp", "fixed").specs[0], CPU, None)
    for values in task.train:
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones(values.shape[1]), atol=1e-5, rtol=0)
    assert all(1e-3 < float(split.targets.mean().abs()) < 0.5 for split in (task.validation, test))


@pytest.mark.parametrize("method", ["adam", "oho-full"])
def test_a_small_convolutional_network_learns(method, tmp_path):
    write_classes(tmp_path, train=40, test=6)
    sizes = {"width": 4, "batch_size": 20, "validation_size": 30, "validation_batch_size": 15}
    overrides = [f"task.{key}={value}" for key, value in sizes.items()]
    spec = named(tmp_path, "cifar10-cnn", method, overrides=[*overrides, "budget.steps=8"]).specs[0]
    outcome = run(spec, tmp_path, data_root=tmp_path, open_sink=lambda *a: NoSink())
    assert outcome.status is Status.BUDGET_REACHED, outcome.message
    assert math.isfinite(outcome.final["incumbent_test_loss"])


def test_a_convolutional_network_takes_flattened_images(tmp_path):
    overrides = ["task.data=digits", "task.validation_size=359", "task.width=4", "methods.0.lr=0.01"]
    spec = named(tmp_path, "fashion-cnn", "adam", overrides=overrides).specs[0]
    final = run_one(spec, tmp_path).final
    assert final["incumbent_test_loss"] < 1.5  # ln 10 is a guess
    assert task_of(spec, CPU, None)[0].train.inputs.shape[1:] == (1, 8, 8)


class TestShakespeare:
    @pytest.mark.parametrize("method", ["adam", "oho-global"])
    def test_it_is_learned(self, method, text_root, tmp_path):
        overrides = [*SMALL_TEXT, "task.selection_epochs=1", "budget.steps=20", "methods.0.lr=0.1"]
        overrides[-1] = "methods.0.lr=0.01" if method == "adam" else overrides[-1]
        spec = named(tmp_path, "shakespeare-transformer", method, overrides=overrides).specs[0]
        outcome = run_one(spec, tmp_path)
        assert outcome.status is Status.BUDGET_REACHED, outcome.message
        first, last = read_run(tmp_path / run_id(spec)).evaluations
        assert last["test_loss"] < first["test_loss"] - (0.3 if method == "adam" else 0.02)
        assert last["test_error"] == pytest.approx(last["test_loss"] / math.log(2))

    def test_the_splits_follow_one_another_in_the_text(self, text_root, tmp_path):
        task, test = task_of(named(tmp_path, "shakespeare-transformer", "fixed").specs[0], CPU, None)
        text = (text_root / SHAKESPEARE).read_text()
        places = {character: place for place, character in enumerate(sorted(set(text)))}
        pieces = torch.cat([task.train.inputs, task.validation.inputs]).flatten()
        assert pieces.tolist() == [places[character] for character in text[: len(pieces)]]
        assert test.inputs[0].tolist() == [places[character] for character in text[1003854 : 1003854 + 64]]
        assert torch.equal(task.train.inputs[0, 1:], task.train.targets[0, :-1])
        assert len(task.validation.targets) == 1000

    def test_no_place_sees_a_later_one(self):
        model = Transformer(9, context=8, width=16, heads=2, layers=2)
        text = torch.randint(9, (3, 8))
        later = text.clone()
        later[:, 5:] = (later[:, 5:] + 1) % 9
        before, after = model(text), model(later)
        torch.testing.assert_close(before[:, :5], after[:, :5])
        assert not torch.allclose(before[:, 5:], after[:, 5:])

    def test_another_text_in_its_place_is_one_line(self, tmp_path):
        (tmp_path / SHAKESPEARE).parent.mkdir()
        (tmp_path / SHAKESPEARE).write_text("To be or not to be")
        with pytest.raises(DataError, match=r"input.txt: damaged .*; remove it, then repeat the command to fetch"):
            load(shakespeare(64), tmp_path)


MINE = """
import torch
from bench.protocol import Split
from bench.tasks import DataSet, Loaded
inputs = torch.rand(300, 5, generator=torch.Generator().manual_seed(0))
whole = Split(inputs, (inputs[:, 0] > %s).long())
DATA = DataSet(description="mine", load=lambda root: Loaded(whole, whole, "mine"))
NUMBERS = DataSet(description="mine", kind="regression", load=lambda root: Loaded(whole, whole, "mine"))
"""


class TestAnotherDataSet:
    def spec(self, folder, data, *more):
        overrides = [f"task.data={data}", "task.validation_size=null", "task.batch_size=20", *more]
        overrides.append("task.validation_batch_size=20")
        return named(folder, "digits-mlp", "fixed", overrides=overrides).specs[0]

    def test_a_registered_one(self, tmp_path):
        spec = named(tmp_path, "mnist-mlp", "fixed", overrides=["task.data=digits", "task.validation_size=359"]).specs[0]
        assert spec["task"]["data"] == {"name": "digits"}
        task, _ = task_of(spec, CPU, None)
        assert (task.data, len(task.train.targets)) == ("digits", 1078)
        assert run_id(spec) != run_id({**spec, "task": {**spec["task"], "data": {"name": "mnist"}}})

    def test_one_of_a_file_whose_change_is_a_new_run(self, tmp_path):
        (tmp_path / "mine.py").write_text(MINE % 0.5)
        spec = self.spec(tmp_path, "./mine.py:DATA")
        assert spec["task"]["data"]["origin"]["file"] == "mine.py"
        outcome = run_one(spec, tmp_path)
        assert (outcome.status, outcome.environment["data"]) == (Status.BUDGET_REACHED, "mine")
        assert math.isfinite(outcome.final["test_loss"])
        (tmp_path / "mine.py").write_text(MINE % 0.6)
        assert run_id(self.spec(tmp_path, "./mine.py:DATA")) != run_id(spec)

    def test_what_does_not_fit_is_refused_in_one_line(self, tmp_path):
        (tmp_path / "mine.py").write_text(MINE % 0.5)
        for data, reason in {
            "./mine.py:NUMBERS": "it is for regression, and the task is one of classification",
            "diabetes": "it is for regression, and the task is one of classification",
            "digts": "unknown data set 'digts'; did you mean 'digits'",
        }.items():
            with pytest.raises(ConfigError, match=reason):
                self.spec(tmp_path, data)
        path = write_config(tmp_path, "fixed")
        path.write_text(path.read_text().replace("digits-mlp", "fashion-cnn, data: ./mine.py:DATA"))
        with pytest.raises(ConfigError, match=r"small.yaml:3:27: .*mine.py:DATA': it has no images, which the task needs$"):
            load_experiment(path)


def test_units_are_no_part_of_a_run(tmp_path):
    spec = experiment(tmp_path, "fixed").specs[0]
    assert spec["task"]["units"]["loss_unit"] == "nats per example"
    without = {**spec, "task": {key: value for key, value in spec["task"].items() if key != "units"}}
    assert run_id(spec) == run_id(without)
    assert same(*(task_of(each, CPU, None)[0].model(0).state_dict() for each in (spec, without)))
