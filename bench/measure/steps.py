"""The steps that `bench.measure.speed` compares, all of one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

import oho
from bench.measure.published_step import PublishedStep
from bench.tasks.models import multilayer_perceptron

BATCH, BATCHES = 100, 20
EVERY = 4
GLOBAL_WORK = 4.7
"""Multiply-adds of a Global step with equal batches, in gradients: two of them, and 1.34 for each of 2 directions."""
THRIFTY_WORK = 2.2
"""Multiply-adds of a thrifty step: 1 + 1/4 for its gradients, and a quarter of 1 + 2 × 1.34 for its products."""
ADVANTAGE = 3.3
"""How many times faster than the published design a Global step should be."""
TUNED_PART = 8
"""One step in so many is tuned by `oho.Windows()` in a long training."""
WINDOWS_WORK = 1.24
"""Multiply-adds of a mean step if one in eight has those products and a validation gradient."""
SGD, MOMENTUM, RAW = oho.SGD(0.01, 1e-5), oho.Momentum(0.01, 1e-5), oho.MetaSGD(1e-6)
Step = Callable[[int], object]


class Batches:
    """A model and its batches: of each split, inputs (batches, examples, ...) and targets (batches, examples, ...)."""

    def __init__(self, model: nn.Module, splits: Sequence[tuple[torch.Tensor, torch.Tensor]]):
        self.model, self.splits = model, splits

    def loss(self, split: int, step: int, model: nn.Module | None = None, *, examples: int | None = None) -> torch.Tensor:
        """Returns the loss on a batch of the training (0) or validation (1) split, or on its first examples."""
        inputs, targets = (values[step % len(values), :examples] for values in self.splits[split])
        outputs = (model or self.model)(inputs)
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


class Problem(Batches):
    """The paper's MNIST network on inputs of MNIST's shape; the values do not matter for the time."""

    def __init__(self, device: torch.device):
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = multilayer_perceptron(784, 128, 3, 10).to(device)
        splits = [
            (
                torch.rand(BATCHES, BATCH, 784, generator=generator).to(device),
                torch.randint(10, (BATCHES, BATCH), generator=generator).to(device),
            )
            for _ in ("train", "validation")
        ]
        super().__init__(model, splits)


def plain(kind: type[torch.optim.Optimizer], **options) -> Callable[[Batches], Step]:
    """Returns a maker of steps of one of PyTorch's optimizers as everybody writes them."""

    def make(problem: Batches) -> Step:
        optimizer = kind(problem.model.parameters(), **options)

        def step(index: int) -> None:
            loss = problem.loss(0, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return make


def online(
    rule: oho.SGD | oho.Momentum | oho.Adam | oho.AdamW, *, meta: oho.MetaSGD | None = RAW, **options
) -> Callable[[Batches], Step]:
    """Returns a maker of steps of `oho.OHO`, each with a meta-step; without a meta-rule, as if none were given."""

    def make(problem: Batches) -> Step:
        optimizer = oho.OHO(problem.model.parameters(), rule, meta=meta, check=None, **options)
        return lambda index: optimizer.step(lambda: problem.loss(0, index), lambda: problem.loss(1, index))

    return make


class OneInEight:
    """As many tuned steps as `oho.Windows` has, spread over all turns."""

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        return step // TUNED_PART


def thrifty(**options) -> Callable[[Batches], Step]:
    """Returns a maker of steps at an average, with products from a quarter of the batch."""

    def make(problem: Batches) -> Step:
        optimizer = oho.OHO(problem.model.parameters(), MOMENTUM, average=oho.Exponential(1000), check=None, **options)

        def step(index: int) -> None:
            optimizer.step(
                lambda: problem.loss(0, index),
                lambda: problem.loss(1, index),
                curvature_closure=lambda: problem.loss(0, index, examples=BATCH // EVERY),
            )

        return step

    return make


def copies(problem: Batches) -> Step:
    """Returns a step of the published design."""
    published = PublishedStep(problem.model, lr=0.01, weight_decay=1e-5)
    return lambda index: published.step(partial(problem.loss, 0, index), partial(problem.loss, 1, index))


def recursion(problem: Batches) -> Step:
    """Returns a step of the published recursion as we compute it."""
    optimizer = oho.PublishedOHO(problem.model.parameters(), lr=0.01, weight_decay=1e-5, meta_lr=1e-6)
    return lambda index: optimizer.step(lambda: problem.loss(0, index), lambda: problem.loss(1, index))




class Variant(NamedTuple):
    """A row of the table; `asked` is the largest ratio to plain SGD that is asked for, or None if none is."""

    what: str
    make: Callable[[Batches], Step]
    asked: float | None = None


VARIANTS: dict[str, Variant] = {
    "plain SGD": Variant("torch.optim.SGD", plain(torch.optim.SGD, lr=0.01, weight_decay=1e-5)),
    "plain momentum": Variant("torch.optim.SGD", plain(torch.optim.SGD, lr=0.01, weight_decay=1e-5, momentum=0.9)),
    "plain AdamW": Variant("torch.optim.AdamW", plain(torch.optim.AdamW, lr=0.001)),
    "OHO, nothing tuned": Variant("the update rule alone", online(oho.SGD(0.01, 1e-5, tune=()))),
    "Global": Variant("exact, 2 tangents", online(SGD), 4.4),
    "Default": Variant("the same, default meta-rule, discount and limit", online(SGD, meta=None)),
    "Global, second backward pass": Variant("exact, 2 tangents", online(SGD, curvature="double_backward")),
    "Global, momentum": Variant("exact, 3 tangents", online(oho.Momentum(0.01, 1e-5, tune=oho.Momentum.names)), 2.7 + 3),
    "Global, Adam": Variant("exact, 2 tangents", online(oho.Adam(0.001, 1e-5))),
    "Global, AdamW": Variant("exact, 2 tangents", online(oho.AdamW(0.001))),
    "thrifty momentum": Variant(
        "Default at an average, a quarter of the products, a meta-step in four", thrifty(update_every=EVERY)
    ),
    "momentum in windows": Variant(
        "the same with one step in eight tuned, and a meta-step in each of them", thrifty(tuned_steps=OneInEight())
    ),
    "Layer-wise, 2 groups": Variant("exact, 8 tangents", online(SGD, sets=oho.Layerwise(2)), 2.7 + 8),
    "Full": Variant("exact, 16 tangents", online(SGD, sets="full"), 2.7 + 16),
    "Full, collapsed": Variant("2 tangents for 16 values", online(SGD, sets="full", influence="collapsed")),
    "published recursion": Variant("`oho.PublishedOHO`", recursion),
    "published design": Variant("a model copy for each probe", copies),
}


class Comparison(NamedTuple):
    """A step beside another: the largest ratio of their times that is asked for, and the ratio of their multiply-adds."""

    above: str
    below: str
    asked: float
    work: float


COMPARISONS = (
    Comparison("Global", "plain SGD", 4.4, GLOBAL_WORK),
    Comparison("Default", "Global", 1.03, 1.0),
    Comparison("Global, AdamW", "plain AdamW", 3.5, GLOBAL_WORK),
    Comparison("thrifty momentum", "plain momentum", 2.4, THRIFTY_WORK),
    Comparison("momentum in windows", "plain momentum", 2.4, WINDOWS_WORK),
    Comparison("Full, collapsed", "Global", 1.1, 1.0),
)
