"""Tasks on images: perceptrons, small convolutional networks, residual networks."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from bench.protocol.augmentation import CropAndFlip
from bench.tasks.data_sets import DataSet
from bench.tasks.entry import Facts, TaskEntry
from bench.tasks.models import Standardise, convolutional_network, multilayer_perceptron, residual_network
from bench.tasks.options import ConvolutionOptions, DropoutOptions, PerceptronOptions, ResidualOptions
from bench.tasks.scikit_learn_sets import DIGITS
from bench.tasks.torchvision_sets import CIFAR10, FASHION_MNIST, MNIST


def perceptron(options: PerceptronOptions, facts: Facts) -> nn.Module:
    """Returns a tanh network, preceded by layers that standardise the bytes of images and flatten them."""
    dropout = options.dropout if isinstance(options, DropoutOptions) else 0.0
    layers = multilayer_perceptron(
        facts.features, options.width, options.hidden_layers, facts.outputs, dropout=dropout
    )  # fmt: skip
    before: list[nn.Module] = [nn.Flatten()] if len(facts.input_shape) > 1 else []
    if facts.mean is not None and facts.deviation is not None:
        before.insert(0, Standardise(facts.mean, facts.deviation))
    return type(layers)(*before, *layers) if before else layers


def convolutional(options: ConvolutionOptions, facts: Facts) -> nn.Module:
    """Returns a small convolutional network."""
    moments = {"mean": facts.mean, "deviation": facts.deviation}
    return convolutional_network(facts.input_shape, options.width, options.blocks, facts.outputs, **moments)


def residual(depth: int, options: ResidualOptions, facts: Facts) -> nn.Module:
    """Returns a ResNet; only images of bytes are standardised."""
    channels = facts.input_shape[0]
    mean = torch.zeros(channels) if facts.mean is None else facts.mean
    deviation = torch.ones(channels) if facts.deviation is None else facts.deviation
    return residual_network(depth, width=options.width, classes=facts.outputs, mean=mean, deviation=deviation)


def _perceptron(description: str, data: DataSet, options: PerceptronOptions) -> TaskEntry:
    noisy = isinstance(options, DropoutOptions)
    return TaskEntry(description=description, data=data, defaults=options, model=perceptron, noisy=noisy)


def _resnet(depth: int, description: str) -> TaskEntry:
    return TaskEntry(
        description=description, data=CIFAR10, model=partial(residual, depth), images=True,
        defaults=ResidualOptions(validation_size=10_000, validation_batch_size=1_000),
        augmentation=CropAndFlip(padding=4),
    )  # fmt: skip


DIGITS_MLP = _perceptron(
    "digits, tanh network 64-32-32-10, 359 held out for validation",
    DIGITS,
    PerceptronOptions(validation_size=359, width=32, hidden_layers=2, selection_epochs=5),
)
MNIST_MLP = _perceptron(
    "MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
    MNIST,
    PerceptronOptions(validation_size=10_000),
)
MNIST_MLP_DROPOUT = _perceptron(
    "the same with a fifth of the hidden units left out at each training step",
    MNIST,
    DropoutOptions(validation_size=10_000),
)
FASHION_MNIST_MLP = _perceptron(
    "Fashion-MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
    FASHION_MNIST,
    PerceptronOptions(validation_size=10_000),
)
FASHION_CNN = TaskEntry(
    description="Fashion-MNIST, two convolutional layers of 16 and 32 channels, 10,000 held out for validation",
    data=FASHION_MNIST,
    defaults=ConvolutionOptions(validation_size=10_000),
    model=convolutional,
    images=True,
)
CIFAR10_CNN = TaskEntry(
    description="CIFAR-10, three convolutional layers of 32, 64 and 128 channels, crops and flips, 10,000 held out",
    data=CIFAR10,
    defaults=ConvolutionOptions(validation_size=10_000, width=32, blocks=3),
    model=convolutional,
    images=True,
    augmentation=CropAndFlip(padding=4),
)
CIFAR10_RESNET18 = _resnet(
    18, "CIFAR-10, ResNet-18 with a 3x3 stem, random crops and flips, 10,000 held out for validation"
)
CIFAR10_RESNET50 = _resnet(50, "the same with ResNet-50")
