"""The tape's sweeps over the layers of larger networks, against autograd's second backward pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock

from bench.protocol.batch_norm import BatchNorm
from bench.tasks.models import convolutional_network
from bench.tasks.transformer import Transformer
from oho.engines.curvature import double_backward, pearlmutter
from oho.flat_parameters import flat_parameters
from tests.oho.test_tape import ROUNDING, compare

CLASSES = 3


class Attention(nn.Module):
    """Heads over fused attention, with three projections."""

    def __init__(self, **options):
        super().__init__()
        self.projections, self.logits = nn.Linear(4, 12), nn.Linear(4, CLASSES)
        self.options = options

    def forward(self, x):
        query, key, value = (part.view(2, 5, 2, 2).transpose(1, 2) for part in self.projections(x).split(4, dim=2))
        seen = functional.scaled_dot_product_attention(query, key, value, **self.options)
        return self.logits(seen.transpose(1, 2).contiguous().view(2, 5, 4))


class Words(nn.Module):
    """A row of a table for each word, normalised."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.logits = nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, CLASSES)

    def forward(self, words):
        return self.logits(functional.softmax(2 * self.norm(self.table(words)) / 3 + 1, dim=-1))


def images(channels=2, side=6):
    return torch.randn(4, channels, side, side, dtype=torch.float64)


def residual():
    shortcut = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), BatchNorm(4))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
    return nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1), BatchNorm(2), nn.ReLU(inplace=True), BasicBlock(2, 2, norm_layer=BatchNorm),
        BasicBlock(2, 4, 2, shortcut, norm_layer=BatchNorm), *head,
    )  # fmt: skip


def convolutions():
    return convolutional_network((2, 7, 7), 3, 2, CLASSES, mean=torch.zeros(2), deviation=torch.ones(2))


def dilated():
    layers = nn.Conv1d(2, 3, 2, dilation=2, stride=2), nn.BatchNorm1d(3), nn.Sigmoid(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(6, CLASSES))


NETWORKS = {
    "convolutions": (convolutions, lambda: images(side=7)),
    "pooled": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(3, stride=1), nn.Flatten(), nn.Linear(12, CLASSES)), images
    ),
    "residual blocks": (residual, images),
    "dilated, one axis": (dilated, lambda: torch.randn(4, 2, 5, dtype=torch.float64)),
    "batch norm of rows": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Linear(4, CLASSES)),
        lambda: torch.randn(6, 3, dtype=torch.float64),
    ),
    "transformer": (
        lambda: Transformer(CLASSES, context=5, width=4, heads=2, layers=2),
        lambda: torch.randint(CLASSES, (2, 5)),
    ),
    "causal attention": (lambda: Attention(is_causal=True), lambda: torch.randn(2, 5, 4, dtype=torch.float64)),
    "masked attention": (
        lambda: Attention(attn_mask=torch.ones(5, 5, dtype=torch.bool).tril(1), scale=0.7),
        lambda: torch.randn(2, 5, 4, dtype=torch.float64),
    ),
    "attention to nothing": (
        lambda: Attention(attn_mask=torch.tensor([True, False, True, True, True]).unsqueeze(1)),
        lambda: torch.randn(2, 5, 4, dtype=torch.float64),
    ),
    "embedding and layer norm": (Words, lambda: torch.randint(5, (2, 5))),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_equal_the_second_backward_pass(name, rows):
    make, draw = NETWORKS[name]
    torch.manual_seed(0)
    model, inputs = make().double(), draw()
    for tensor in model.parameters():
        if tensor.ndim == 1:  # away from ones and zeros
            nn.init.normal_(tensor)
    targets = torch.randint(CLASSES, model(inputs).shape[:-1]).flatten()
    difference, answered = compare(
        model.parameters(), lambda: functional.cross_entropy(model(inputs).flatten(0, -2), targets), rows=rows
    )
    assert answered
    assert difference < ROUNDING


def test_a_frozen_kernel_with_a_bias_that_trains():
    layers = nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, CLASSES, 4), nn.Flatten()
    model, inputs = nn.Sequential(*layers).double(), images()
    model[0].weight.requires_grad_(False)
    difference, answered = compare(
        model.parameters(), lambda: functional.cross_entropy(model(inputs), torch.tensor([0, 1, 2, 0]))
    )
    assert answered
    assert difference < ROUNDING


def test_words_overwritten_after_they_were_looked_up():
    torch.manual_seed(0)
    model, words = Words().double(), torch.randint(5, (2, 5))
    flat = flat_parameters(model.parameters())
    tangents = torch.randn(2, 1, flat.size, dtype=torch.float64)

    def overwriting():
        places = words.clone()
        loss = functional.cross_entropy(model(places).flatten(0, -2), words.flatten() % CLASSES)
        places.zero_()
        return loss

    found = pearlmutter(overwriting, flat, tangents)
    expected = double_backward(
        lambda: functional.cross_entropy(model(words).flatten(0, -2), words.flatten() % CLASSES), flat, tangents
    )
    torch.testing.assert_close(found.gradient, expected.gradient)
    torch.testing.assert_close(found.products, expected.products)


def test_what_is_checkpointed_is_not_kept():
    model, inputs = convolutions().double(), images(side=7)
    difference, answered = compare(
        model.parameters(),
        lambda: functional.cross_entropy(checkpoint(model, inputs, use_reentrant=False), torch.tensor([0, 1, 2, 0])),
    )
    assert not answered
    assert difference < ROUNDING
