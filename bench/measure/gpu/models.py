"""Small networks of several kinds, of which correctness is asked, on the same inputs (batch, 48) float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from bench.tasks.transformer import Block

FEATURES, CLASSES = 48, 3


class Attention(nn.Module):
    """One layer of attention over six tokens of eight numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(8, 24), nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits (batch, classes)."""
        queries, keys, values = self.project(inputs.unflatten(1, (6, 8))).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        return self.out(seen.transpose(1, 2).flatten(2).mean(1))


class Recurrent(nn.Module):
    """An LSTM over six tokens of eight numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits (batch, classes)."""
        return self.out(self.recurrent(inputs.unflatten(1, (6, 8)))[0][:, -1])


def perceptron(width: int = 9) -> nn.Module:
    """Returns a tanh network with one hidden layer."""
    return nn.Sequential(nn.Linear(FEATURES, width), nn.Tanh(), nn.Linear(width, CLASSES))


def wide_perceptron() -> nn.Module:
    """Returns a perceptron with a weight so large that a population takes its products one by one."""
    return perceptron(1400)


def convolutional() -> nn.Module:
    """Returns a convolution with batch norm and pooling."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, CLASSES),
    )  # fmt: skip


def residual() -> nn.Module:
    """Returns two of ResNet-18's blocks, one of them with a shortcut."""
    shortcut = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
    blocks = BasicBlock(3, 3), BasicBlock(3, 4, 2, shortcut)
    return nn.Sequential(nn.Unflatten(1, (3, 4, 4)), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))


def transformer() -> nn.Module:
    """Returns a transformer's block over six tokens of eight numbers."""
    block = Block(8, heads=2, context=6)
    return nn.Sequential(nn.Unflatten(1, (6, 8)), block, nn.LayerNorm(8), nn.Flatten(), nn.Linear(FEATURES, CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": perceptron, "wide perceptron": wide_perceptron, "convolution, batch norm": convolutional,
    "residual blocks": residual, "transformer block": transformer, "fused attention": Attention, "LSTM": Recurrent,
}  # fmt: skip


def data(batches: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Returns batches of 12 examples, the same on every device."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(batches, 12, FEATURES, generator=generator, dtype=torch.float64)
    targets = torch.randint(CLASSES, (batches, 12), generator=generator)
    return [(one.to(device), classes.to(device)) for one, classes in zip(inputs, targets, strict=True)]
