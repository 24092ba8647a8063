"""The tasks' models.  None changes its own state while it computes: randomness is passed in as an argument."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from bench.protocol.batch_norm import BatchNorm


class Dropout(nn.Module):
    """A layer that, given a source of noise, sets a fraction of the activations to zero and scales the others up.

    Without noise it does nothing, so evaluation need not switch it off.
    """

    def __init__(self, fraction: float):
        super().__init__()
        self.fraction = fraction

    def forward(self, inputs: Tensor, noise: Generator | None) -> Tensor:
        """Returns outputs of the inputs' shape; the same state of `noise` gives the same mask at any precision."""
        if noise is None:
            return inputs
        drawn = torch.rand(inputs.shape, generator=noise, device=inputs.device, dtype=torch.float32)
        return inputs * (drawn >= self.fraction) / (1 - self.fraction)


class Chain(nn.Sequential):
    """A sequence of layers, in which all dropout layers share one source of noise."""

    def forward(self, inputs: Tensor, noise: Generator | None = None) -> Tensor:
        """Returns the outputs of the last layer."""
        for layer in self:
            inputs = layer(inputs, noise) if isinstance(layer, Dropout) else layer(inputs)
        return inputs


def multilayer_perceptron(
    features: int, width: int, hidden_layers: int, classes: int, *, dropout: float = 0.0
) -> nn.Sequential:
    """Returns linear layers with tanh between them, initialised as torch does; `dropout` is the fraction after a tanh."""
    sizes = [features] + [width] * hidden_layers
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
        layers += [Dropout(dropout)] if dropout else []
    return Chain(*layers, nn.Linear(sizes[-1], classes))


class Standardise(nn.Module):
    """A layer that takes bytes (n, channels, height, width) and standardises each channel by `mean` and `deviation`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", mean[:, None, None].to(torch.get_default_dtype()))
        self.register_buffer("deviation", deviation[:, None, None].to(torch.get_default_dtype()))

    def forward(self, images: Tensor) -> Tensor:
        """Returns floats of the buffers' type."""
        return (images - self.mean) / self.deviation


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation (channels,), in float64, of uint8 images (n, channels, height, width), by exact counts."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    shares, values = counts / counts.sum(1, keepdim=True), torch.arange(256, device=images.device).double()
    mean = shares @ values
    return mean, (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()


def convolutional_network(
    shape: tuple[int, ...], width: int, blocks: int, classes: int, *, mean: Tensor | None = None,
    deviation: Tensor | None = None,
) -> nn.Sequential:  # fmt: skip
    """Returns blocks of a 3x3 convolution of stride 2 and ReLU, then one linear layer.

    The first block has `width` channels, and each further one twice as many as the one before.  Images have the `shape`
    (channels, height, width); bytes are standardised by the channels' `mean` and `deviation`.
    """
    channels, *sides = shape
    layers: list[nn.Module] = [] if mean is None or deviation is None else [Standardise(mean, deviation)]
    for block in range(blocks):
        outputs = width * 2**block
        layers += [nn.Conv2d(channels, outputs, 3, stride=2, padding=1), nn.ReLU()]
        channels, sides = outputs, [(side + 1) // 2 for side in sides]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(sides), classes))


RESIDUAL_STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""The number of blocks in each stage, by depth."""


def residual_network(
    depth: int, *, width: int, classes: int, mean: Tensor, deviation: Tensor
) -> nn.Sequential:
    """Returns ResNet-18 or ResNet-50 for small uint8 images: 3x3 stem of stride 1, no max-pool, `width` channels after it.

    `mean` and `deviation` are those of the training images' channels.  The blocks are torchvision's; convolutions are
    initialised from the fan-out as in arXiv 1502.01852.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck, conv3x3

    block = BasicBlock if depth == 18 else Bottleneck
    layers: list[nn.Module] = [
        Standardise(mean, deviation), conv3x3(len(mean), width), BatchNorm(width), nn.ReLU(inplace=True)
    ]  # fmt: skip
    channels = width
    for stage, count in enumerate(RESIDUAL_STAGES[depth]):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(_residual_block(block, channels, width * 2**stage, stride))
            channels = width * 2**stage * block.expansion
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _residual_block(block, channels: int, planes: int, stride: int) -> nn.Module:
    """Returns one of torchvision's blocks, whose shortcut is a 1x1 convolution if the shape changes."""
    from torchvision.models.resnet import conv1x1

    outputs, shortcut = planes * block.expansion, None
    if stride != 1 or channels != outputs:
        shortcut = nn.Sequential(conv1x1(channels, outputs, stride), BatchNorm(outputs))
    return block(channels, planes, stride, shortcut, norm_layer=BatchNorm)
