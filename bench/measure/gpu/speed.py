"""What a step costs on the device: eager and as a graph, many trainings at once, and the parts of a step of ResNet-18."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import oho
from bench.measure.gpu.graphs import captured_step
from bench.measure.gpu.tables import Table
from bench.measure.gpu.timing import CannotCaptureError, Step, captured, launches, milliseconds
from bench.measure.speed import VARIANTS, Problem
from bench.tasks.models import residual_network

EPOCHS, STEPS_PER_EPOCH = 100, 500
"""The paper's MNIST training."""
GLOBAL_MILLISECONDS, TRAINING_SECONDS, ADVANTAGE, THROUGHPUT, RESIDUAL_MILLISECONDS = 0.25, 15, 50, 100, 20
"""What is asked of a Global step, of 100 epochs, of the published design over Global, of 256 members over one, and of a
Global step of ResNet-18 with batches of 100 and 1000."""
SIZES = (784, 128, 128, 128, 10)


SGD = oho.SGD(lr=0.01, weight_decay=1e-5)
ONE_IN_EIGHT, FIRST_STEPS = oho.Windows(1, 5, 40), 160
"""As many tuned steps as the averaged method has in a long training; steps after which all of its kinds are captured."""
LOOKING_AHEAD = "Global, looking ahead"
GLOBAL = partial(oho.OHO, rule=SGD, meta=oho.MetaSGD(1e-6), check=None)
TUNED: dict[str, Callable[..., oho.OHO]] = {
    "Global": GLOBAL,
    LOOKING_AHEAD: GLOBAL,
    "Default": partial(oho.OHO, rule=SGD, check=None),
    "Averaged": partial(oho.averaged, rule=SGD, tuned_steps=ONE_IN_EIGHT, check=None),
    "Averaged, AdamW": partial(oho.averaged, rule=oho.AdamW(lr=0.001), tuned_steps=ONE_IN_EIGHT, check=None),
    "Full": partial(GLOBAL, sets="full"),
    "Global, second backward pass": partial(GLOBAL, curvature="double_backward"),
}
"""Makers of the optimizers that are measured."""
OTHERS = ("plain SGD", "published design")
ORDER = (OTHERS[0], *TUNED, OTHERS[1])


class Measured:
    """A kind of step on one batch of the paper's network, eager and as a graph."""

    def __init__(self, name: str, device: torch.device):
        self._name, self._device = name, device

    def eager(self) -> Step:
        """Returns the step as it is."""
        problem = Problem(self._device)
        if self._name in OTHERS:
            return partial(VARIANTS[self._name].make(problem), 0)
        optimizer = TUNED[self._name](problem.model.parameters())
        return lambda: optimizer.step(lambda: problem.loss(0, 0), lambda: problem.loss(1, 0))

    def graph(self) -> Step:
        """Returns its replay, or raises CannotCaptureError."""
        if self._name in OTHERS:
            return captured(self.eager(), self._device)
        problem = Problem(self._device)
        optimizer = TUNED[self._name](problem.model.parameters())
        train, valid = ((inputs[0], targets[0]) for inputs, targets in problem.splits)

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            return functional.cross_entropy(problem.model(inputs), targets)

        ahead = self._name == LOOKING_AHEAD
        return captured_step(optimizer, loss, (train, valid), self._device, first=FIRST_STEPS, look_ahead=ahead)


def steps(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `steps`: the paper's MNIST network, batches of 100 and 100."""
    table = Table(
        out, "steps", title="What a step costs", device=device,
        words="Network 784-128-128-128-10, batches of 100 and 100, float32.  A graph replays the step on one batch.",
        columns=("step", "eager, ms", "× plain SGD", "kernels a step", "waits of the host", "copies to the host",
                 "graph, ms", "× plain SGD's", "graph in TF32, ms", "asked"),
    )  # fmt: skip
    each = seconds / len(ORDER) / 5
    eagers, graphs = dict[str, float](), dict[str, float]()
    for name in ORDER:
        def cells(name: str = name) -> list[str]:
            measured = Measured(name, device)
            step = measured.eager()
            eagers[name] = milliseconds(step, device, each)
            graph, in_tf32 = _graphed(measured.graph, device, each), "graph: not available"
            if isinstance(graph, float):
                graphs[name] = graph
                with _precision(tf32=True):
                    in_tf32 = _shown(_graphed(Measured(name, device).graph, device, each))
            asked = f"graph ≤ {GLOBAL_MILLISECONDS} ms" if name == "Global" else ""
            of_eager, of_graph = (_ratio(times, name) for times in (eagers, graphs))
            return [
                f"{eagers[name]:.3f}", of_eager, *launches(step, device), _shown(graph), of_graph, in_tf32, asked
            ]  # fmt: skip

        table.measure(name, cells=cells)
    best = {name: min(eager, graphs.get(name, eager)) for name, eager in eagers.items()}
    if "Global" in best:
        training = best["Global"] * EPOCHS * STEPS_PER_EPOCH / 1e3
        table.add(f"{EPOCHS} epochs of Global, s", *[""] * 5, f"{training:.1f}", "", "", f"≤ {TRAINING_SECONDS} s")
    if "Global" in best and "published design" in best:
        ratio = best["published design"] / best["Global"]
        table.add("published design over Global, ×", *[""] * 5, f"{ratio:.1f}", "", "", f"≥ {ADVANTAGE}")


def _ratio(times: dict[str, float], name: str) -> str:
    return f"{times[name] / times['plain SGD']:.2f}" if name in times and "plain SGD" in times else ""


def _graphed(make: Callable[[], Step], device: torch.device, seconds: float) -> float | str:
    """Returns the milliseconds of a replay, or why there is none."""
    try:
        return milliseconds(make(), device, seconds)
    except CannotCaptureError as error:
        return str(error)


def _shown(time: float | str) -> str:
    return time if isinstance(time, str) else f"{time:.3f}"


def populations(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `populations`: Global steps of many trainings at once."""
    table = Table(
        out, "populations", title="Many trainings at once", device=device,
        words="Global steps of the MNIST network, each member on its own batches of 100 and 100, float32.",
        columns=("members", "eager, ms a step", "graph, ms a step", "graph in TF32, ms", "member steps a second",
                 "× one member", "× one eager member", "asked"),
    )  # fmt: skip
    counts, alone, eagers = (1, 4) if tiny else (1, 16, 64, 256), list[float](), list[float]()
    for members in counts:
        def cells(members: int = members) -> list[str]:
            each = seconds / len(counts) / 5
            eagers.append(eager := milliseconds(Members(members, device).eager(), device, each))
            graph = _graphed(Members(members, device).graph, device, each)
            with _precision(tf32=True):
                in_tf32 = _graphed(Members(members, device).graph, device, each)
            rate = 1e3 * members / (eager if isinstance(graph, str) else min(eager, graph))
            alone.append(rate)
            asked = f"≥ {THROUGHPUT}" if members == 256 else ""
            over_eager = rate * eagers[0] / 1e3
            return [
                f"{eager:.3f}", _shown(graph), _shown(in_tf32), f"{rate:,.0f}", f"{rate / alone[0]:.1f}",
                f"{over_eager:.1f}", asked,
            ]  # fmt: skip

        table.measure(members, cells=cells)


class Members:
    """Global steps of so many trainings of the paper's network, each on its own batches."""

    def __init__(self, members: int, device: torch.device):
        self._device = device
        weights = [nn.Parameter(torch.randn(members, b, a, device=device) / a**0.5) for a, b in pairwise(SIZES)]
        biases = [nn.Parameter(torch.zeros(members, b, device=device)) for b in SIZES[1:]]
        self._layers = list(zip(weights, biases, strict=True))
        parameters = [part for layer in self._layers for part in layer]
        self._optimizer = GLOBAL(parameters, members=members)
        self._train, self._valid = (_images(members, 100, shape=(784,), device=device) for _ in range(2))

    def _losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        for weight, bias in self._layers[:-1]:
            inputs = torch.tanh(oho.members.linear(inputs, weight, bias))
        return oho.members.cross_entropy(oho.members.linear(inputs, *self._layers[-1]), targets)

    def eager(self) -> Step:
        """Returns the step as it is."""
        return lambda: self._optimizer.step(lambda: self._losses(*self._train), lambda: self._losses(*self._valid))

    def graph(self) -> Step:
        """Returns its replay, or raises CannotCaptureError."""
        return captured_step(self._optimizer, self._losses, (self._train, self._valid), self._device)


def _images(*lead: int, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.rand(*lead, *shape, device=device), torch.randint(10, lead, device=device)


LAYOUTS = {
    "TF32": (True, torch.contiguous_format), "TF32, channels last": (True, torch.channels_last),
    "float32": (False, torch.contiguous_format),
}  # fmt: skip


def residual(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `residual`: the parts of a Global step of ResNet-18."""
    batch, held = (2, 2) if tiny else (100, 1000)
    table = Table(
        out, "residual", title="The parts of a step of ResNet-18", device=device,
        words=f"CIFAR-10's shape, 3x3 stem, batches of {batch} and {held}.  Milliseconds; a Global step has two products.",
        columns=("precision and layout", "gradient", "gradient and a product", "validation gradient", "the same in bf16",
                 "Global step", "graph", "graph, validation in bf16", "peak memory, GiB", "asked"),
    )  # fmt: skip
    for name in list(LAYOUTS)[: 1 if tiny else None]:
        with _precision(tf32=LAYOUTS[name][0]):
            cells = partial(_residual_cells, LAYOUTS[name][1], device, (batch, held), 4 if tiny else 64, seconds / 60)
            table.measure(name, cells=cells)


@contextmanager
def _precision(*, tf32: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _residual_cells(
    layout: torch.memory_format, device: torch.device, sizes: tuple[int, int], width: int, seconds: float
) -> list[str]:
    model = residual_network(18, width=width, classes=10, mean=torch.full((3,), 128.0), deviation=torch.full((3,), 64.0))
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    parameters = list(model.parameters())
    directions = [torch.randn_like(parameter) for parameter in parameters]
    train, valid = (_images(size, shape=(3, 32, 32), device=device) for size in sizes)
    train, valid = ((255 * inputs.to(memory_format=layout), targets) for inputs, targets in (train, valid))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def gradient(batch: tuple[Tensor, Tensor], *, graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(batch), parameters, create_graph=graph)

    def narrow(*batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return loss(batch)  # type: ignore[arg-type]

    def product() -> None:
        torch.autograd.grad(gradient(train, graph=True), parameters, directions)

    def optimizer() -> oho.OHO:
        return oho.OHO(model.parameters(), oho.SGD(0.01, 1e-4), meta=oho.MetaSGD(1e-7), check=None)

    def graph(of_validation: Callable[..., Tensor] | None = None) -> Step:
        return captured_step(optimizer(), lambda *batch: loss(batch), (train, valid), device, valid=of_validation)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    eager = optimizer()
    timed = [
        lambda: gradient(train), product, lambda: gradient(valid),
        lambda: torch.autograd.grad(narrow(*valid), parameters),
        lambda: eager.step(lambda: loss(train), lambda: loss(valid)),
    ]  # fmt: skip
    found = [f"{milliseconds(step, device, seconds):.2f}" for step in timed]
    found += [_shown(_graphed(partial(graph, valid_loss), device, seconds)) for valid_loss in (None, narrow)]
    peak = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else ""
    return [*found, peak, f"Global ≤ {RESIDUAL_MILLISECONDS}"]
