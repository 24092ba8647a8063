"""Dropout, batch norm, augmentation and the residual networks, on digits and on small archives of images."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import KINDS, METHOD_LINES, experiment, same
from images import write_classes
from torch import nn
from torch.nn import functional

from bench.experiment.registries import TASKS
from bench.experiment.spec import method_of
from bench.protocol import Batches, Split, select
from bench.protocol.augmentation import CropAndFlip
from bench.protocol.batch_norm import BatchNorm, estimate_statistics
from bench.protocol.ledger import Ledger
from bench.protocol.task import laid_out
from bench.records import Status, read_run, run_id
from bench.run.runner import run
from bench.tasks.entry import build_task
from bench.tasks.image_tasks import MNIST_MLP_DROPOUT
from bench.tasks.models import Dropout, multilayer_perceptron, residual_network
from bench.tasks.options import DropoutOptions
from bench.tasks.scikit_learn_sets import DIGITS
from bench.tracking.wandb_sink import NoSink

CPU = torch.device("cpu")
DIGITS_DROPOUT = replace(
    MNIST_MLP_DROPOUT, data=DIGITS, defaults=DropoutOptions(validation_size=359, width=32, hidden_layers=2)
)
TIMES = ("counted_seconds", "wall_seconds")


@pytest.fixture
def digits_dropout(monkeypatch):
    """The dropout task's parts on digits, under a name of its own."""
    monkeypatch.setitem(TASKS._ours, "digits-mlp-dropout", f"{__name__}:DIGITS_DROPOUT")
    return build_task("digits-mlp-dropout", DIGITS_DROPOUT, DIGITS_DROPOUT.defaults, device=CPU)


@pytest.fixture
def images(tmp_path):
    """The real ResNet-18 task, four channels wide, on 90 training images of noise."""
    write_classes(tmp_path, train=40, test=6)
    options = TASKS["cifar10-resnet18"].defaults.model_copy(
        update={"width": 4, "batch_size": 30, "validation_size": 30, "validation_batch_size": 15}
    )
    return build_task("cifar10-resnet18", TASKS["cifar10-resnet18"], options, device=CPU, root=tmp_path)


def records(spec, folder, data_root=None):
    outcome = run(spec, folder, data_root=data_root, open_sink=lambda *a: NoSink())
    assert outcome.status is Status.BUDGET_REACHED, outcome.message
    found = read_run(folder / run_id(spec)).records
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def test_a_gpu_has_images_channels_last_and_volumes_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Linear(4, 3))
    image, volume = (layer.weight for layer in laid_out(model, torch.device("cuda"))[:2])
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert volume.is_contiguous()
    laid_out(model, torch.device("cpu"))
    assert image.is_contiguous()


def test_the_published_networks():
    """Tensors and parameters as with the usual ResNets for CIFAR-10, and an 8-fold smaller map at the end."""
    moments = {"mean": torch.full((3,), 127.0), "deviation": torch.full((3,), 60.0)}
    for depth, tensors, parameters in ((18, 62, 11_173_962), (50, 161, 23_520_842)):
        with torch.device("meta"):
            model = residual_network(depth, width=64, classes=10, **moments)
        assert len(list(model.parameters())) == tensors
        assert sum(p.numel() for p in model.parameters()) == parameters
    narrow = residual_network(18, width=4, classes=10, **moments)
    assert narrow[:-3](torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 32, 4, 4)


class TestDropout:
    @pytest.mark.parametrize(
        "method", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in sorted(METHOD_LINES)]
    )
    def test_every_method_trains_with_it(self, method, digits_dropout, tmp_path):
        task, _ = digits_dropout
        method = method_of(experiment(tmp_path, method).specs[0])
        trained = []
        for noisy in (True, False):
            state = method.init(replace(task, noisy=noisy), 0)
            method.advance(state, steps=5, progress=0.0, ledger=Ledger())
            trained.append(state.model.state_dict())
        assert not same(*trained)

    @pytest.mark.parametrize("method", ["fixed", "oho-global"])
    def test_same_seed_gives_the_same_records(self, method, digits_dropout, tmp_path):
        spec = experiment(tmp_path, method, overrides=["task.name=digits-mlp-dropout"]).specs[0]
        first = records(spec, tmp_path / "a")
        torch.rand(7)  # what else draws in the process must not matter
        assert first == records(spec, tmp_path / "b")

    def test_a_step_has_one_mask_and_another_step_another(self, digits_dropout):
        task, _ = digits_dropout
        model, batches = task.model(0), task.train_batches(0)
        first = batches.at(0)
        losses = [float(task.training_loss(model, batch).detach()) for batch in
                  (first, first, first._replace(noise=batches.at(1).noise), task.train_batches(0).at(0))]  # fmt: skip
        assert losses[0] == losses[1] == losses[3] != losses[2]
        assert first.noise != task.train_batches(1).at(0).noise

    def test_it_is_off_in_validation_and_evaluation(self, digits_dropout):
        task, _ = digits_dropout
        model = task.model(0)
        plain = multilayer_perceptron(64, 32, 2, 10)
        for ours, its in zip(plain.parameters(), model.parameters(), strict=True):
            with torch.no_grad():
                ours.copy_(its)
        assert task.evaluate_as_is(model, task.validation) == task.evaluate_as_is(plain, task.validation)
        batch = task.validation_batches(0).at(0)
        assert torch.equal(task.validation_loss(model, batch), task.loss(plain(batch.inputs), batch.targets))

    def test_it_drops_the_fraction_and_scales_the_rest_up(self):
        dropped, precise = (
            Dropout(0.2)(torch.ones(1000, 100, dtype=dtype), torch.Generator().manual_seed(0))
            for dtype in (torch.float32, torch.float64)
        )
        assert set(dropped.unique().tolist()) == {0.0, 1.25}
        assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / 1e5))
        assert torch.equal(dropped.double(), precise)  # an audit in double precision meets the masks of the run


class TestBatchNorm:
    def test_statistics_are_those_of_the_sample(self, images):
        """Of all that enters each layer, batches of unequal size pooled."""
        task, _ = images
        model, sample = task.model(0).double(), task.train.inputs[:50]
        layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
        entered = {layer: [] for layer in layers}
        hooks = [layer.register_forward_pre_hook(lambda m, inputs: entered[m].append(inputs[0])) for layer in layers]
        with torch.no_grad():
            for batch in sample.split([17, 17, 16]):
                model(batch)
        for hook in hooks:
            hook.remove()
        estimate_statistics(model, sample, 16)
        assert len(layers) == 20
        for layer in layers:
            values = torch.cat(entered[layer]).transpose(0, 1).flatten(1)
            torch.testing.assert_close(layer.mean, values.mean(1), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(layer.variance, values.var(1, correction=0), rtol=1e-12, atol=1e-12)

    def test_a_sample_that_is_one_batch_is_evaluated_as_it_is_trained(self, images):
        task, _ = images
        model, sample = task.model(0).double(), task.train.inputs
        estimate_statistics(model, sample, len(sample))
        torch.testing.assert_close(model.eval()(sample), model.train()(sample), rtol=1e-10, atol=1e-10)

    def test_evaluation_leaves_training_alone_and_repeats_itself(self, images):
        task, test = images
        model, batch = task.model(0), task.train_batches(0).at(0)
        before = task.training_loss(model, batch)
        gradients = torch.autograd.grad(before, list(model.parameters()))
        first = task.evaluate(model, task.validation, test)
        statistics = {name: value.clone() for name, value in model.named_buffers()}
        assert first == task.evaluate(model, task.validation, test)
        assert same(statistics, dict(model.named_buffers()))
        assert model.training
        after = task.training_loss(model, batch)
        assert torch.equal(before, after)
        for ours, its in zip(gradients, torch.autograd.grad(after, list(model.parameters())), strict=True):
            assert torch.equal(ours, its)

    def test_statistics_travel_with_the_incumbent(self, images, tmp_path):
        task, _ = images
        method = method_of(experiment(tmp_path, "fixed", overrides=["methods.0.lr=0.01"]).specs[0])
        state = method.init(task, 0)
        select(state)
        kept = state.incumbent
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
        other = task.model(1)
        # Nothing is estimated yet: no number passes for a result.
        assert math.isnan(task.evaluate_as_is(other, task.validation).loss)
        other.load_state_dict(kept.weights)
        assert task.evaluate_as_is(other, task.validation).loss == kept.validation_loss


class TestAugmentation:
    def test_training_images_are_crops_and_mirrors_of_the_padded_ones(self, images):
        task, _ = images
        plain = Batches(task.train, task.batch_size, 0, "batches")
        batches, choices = task.train_batches(0), set()
        for step in range(2):
            batch, original = batches.at(step), plain.at(step)
            assert torch.equal(batch.targets, original.targets)
            padded = functional.pad(original.inputs, [4] * 4)
            for image, source in zip(batch.inputs, padded, strict=True):
                found = [
                    (top, left, mirror)
                    for top in range(9) for left in range(9) for mirror in (False, True)
                    if torch.equal(image.flip(2) if mirror else image, source[:, top : top + 32, left : left + 32])
                ]  # fmt: skip
                assert len(found) == 1
                choices.update(found)
        tops, lefts, mirrors = (set(values) for values in zip(*choices, strict=True))
        assert mirrors == {False, True}
        assert min(len(tops), len(lefts)) >= 7
        assert {0, 8} <= tops | lefts

    def test_a_batch_is_a_function_of_seed_and_step(self, images):
        task, _ = images
        forward, backward, other = (task.train_batches(seed) for seed in (0, 0, 1))
        in_order = [forward.at(step) for step in range(7)]
        for step in reversed(range(7)):  # three steps an epoch
            assert torch.equal(backward.at(step).inputs, in_order[step].inputs)
        assert not torch.equal(other.at(0).inputs, in_order[0].inputs)

    def test_an_example_is_augmented_anew_in_each_epoch(self):
        split = Split(torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).to(torch.uint8), torch.tensor([0, 1]))
        batches = Batches(split, 2, 0, "batches", augmentation=CropAndFlip(2))
        seen = [batch.inputs[batch.targets == 0].flatten().tolist() for batch in map(batches.at, range(10))]
        assert len(set(map(tuple, seen))) > 5

    def test_validation_images_are_as_stored(self, images):
        task, _ = images
        stored = {image.numpy().tobytes() for image in task.validation.inputs}
        batches = task.validation_batches(0)
        assert all(image.numpy().tobytes() in stored for step in range(4) for image in batches.at(step).inputs)

    def test_pixels_are_standardised_by_the_training_split(self, images):
        task, _ = images
        inside = task.model(0)[0].double()(task.train.inputs)
        assert inside.mean((0, 2, 3)).abs().max() < 1e-5  # the moments are stored in single precision
        assert (inside.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("cifar10-resnet18", "oho-global"), pytest.param("cifar10-resnet50", "fixed", marks=pytest.mark.slow),
        pytest.param("cifar10-resnet18", "fixed", marks=pytest.mark.slow),
        pytest.param("cifar10-resnet50", "oho-global", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_run_on_an_archive_repeats_itself_and_says_what_its_images_are(task, method, tmp_path):
    write_classes(tmp_path, train=12, test=2, size=8)
    small = {"name": task, "width": 4, "batch_size": 8, "validation_size": 12, "validation_batch_size": 12}
    overrides = [f"task.{key}={value}" for key, value in small.items()]
    spec = experiment(tmp_path, method, overrides=[*overrides, "budget.steps=6", "evaluations=2"]).specs[0]
    first, second = (records(spec, tmp_path / name, data_root=tmp_path) for name in "ab")
    assert first == second
    assert first[-1]["step"] == 6
    assert math.isfinite(first[-1]["incumbent_test_loss"])
    assert read_run(tmp_path / "a" / run_id(spec)).outcome.environment["data"] == "CIFAR-10 (JPEG)"
