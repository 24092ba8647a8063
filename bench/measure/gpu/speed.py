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
from bench.measure.gpu.tables import Table
from bench.measure.gpu.timing import CannotCaptureError, Step, captured, launches, milliseconds
from bench.measure.speed import VARIANTS, Problem, Variant, online
from bench.tasks.models import residual_network

EPOCHS, STEPS_PER_EPOCH = 100, 500
"""The paper's MNIST training."""
GLOBAL_MILLISECONDS, TRAINING_SECONDS, ADVANTAGE, THROUGHPUT, RESIDUAL_MILLISECONDS = 0.25, 15, 50, 100, 20
"""What is asked of a Global step, of 100 epochs, of the published design over Global, of 256 members over one, and of a
Global step of ResNet-18 with batches of 100 and 1000."""
SIZES = (784, 128, 128, 128, 10)


def default(problem: Problem) -> Callable[[int], object]:
    """Returns a step of `oho.OHO` as it is without options."""
    optimizer = oho.OHO(problem.model.parameters(), oho.SGD(lr=0.01, weight_decay=1e-5), check=None)
    return lambda index: optimizer.step(lambda: problem.loss(0, index), lambda: problem.loss(1, index))


CHOSEN = {
    **{name: VARIANTS[name] for name in ("plain SGD", "Global", "Full", "published design")},
    "Global, second backward pass": Variant("exact, 2 tangents", online(oho.SGD(0.01, 1e-5), curvature="double_backward")),
    "Default": Variant("Adam on logarithms, discount and limit", default),
}


def steps(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `steps`: the paper's MNIST network, batches of 100 and 100."""
    table = Table(
        out, "steps", title="What a step costs", device=device,
        words="Network 784-128-128-128-10, batches of 100 and 100, float32.  A graph replays the step on one batch.",
        columns=("step", "eager, ms", "× plain SGD", "kernels a step", "waits of the host", "copies to the host",
                 "graph, ms", "asked"),
    )  # fmt: skip
    each, best = seconds / len(CHOSEN) / 4, {}
    for name in ("plain SGD", "Global", "Default", "Full", "published design", "Global, second backward pass"):
        def cells(name: str = name) -> list[str]:
            step = partial(CHOSEN[name].make(Problem(device)), 0)
            eager = best[name] = milliseconds(step, device, each)
            graph = _graphed(CHOSEN[name], device, each)
            if isinstance(graph, float):
                best[name] = min(best[name], graph)
            asked = f"≤ {GLOBAL_MILLISECONDS} ms" if name == "Global" else ""
            ratio = f"{eager / best['plain SGD']:.2f}" if "plain SGD" in best else ""
            return [f"{eager:.3f}", ratio, *launches(step, device), _shown(graph), asked]

        table.measure(name, cells=cells)
    if "Global" in best:
        training = best["Global"] * EPOCHS * STEPS_PER_EPOCH / 1e3
        table.add(f"{EPOCHS} epochs of Global, s", f"{training:.1f}", *[""] * 5, f"≤ {TRAINING_SECONDS} s")
    if "Global" in best and "published design" in best:
        ratio = best["published design"] / best["Global"]
        table.add("published design over Global, ×", f"{ratio:.1f}", *[""] * 5, f"≥ {ADVANTAGE}")


def _graphed(variant: Variant, device: torch.device, seconds: float) -> float | str:
    try:
        return milliseconds(captured(partial(variant.make(Problem(device)), 0), device), device, seconds)
    except CannotCaptureError as error:
        return str(error)


def _shown(time: float | str) -> str:
    return time if isinstance(time, str) else f"{time:.3f}"


def populations(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `populations`: Global steps of many trainings at once."""
    table = Table(
        out, "populations", title="Many trainings at once", device=device,
        words="Global steps of the MNIST network, each member on its own batches of 100 and 100, float32.",
        columns=("members", "eager, ms a step", "graph, ms a step", "member steps a second", "× one member", "asked"),
    )  # fmt: skip
    counts, alone = (1, 4) if tiny else (1, 16, 64, 256), []
    for members in counts:
        def cells(members: int = members) -> list[str]:
            eager = milliseconds(_population(members, device), device, seconds / len(counts) / 4)
            graph = _graph_of_population(members, device, seconds / len(counts) / 4)
            rate = 1e3 * members / (eager if isinstance(graph, str) else min(eager, graph))
            alone.append(rate)
            asked = f"≥ {THROUGHPUT}" if members == 256 else ""
            return [f"{eager:.3f}", _shown(graph), f"{rate:,.0f}", f"{rate / alone[0]:.1f}", asked]

        table.measure(members, cells=cells)


def _graph_of_population(members: int, device: torch.device, seconds: float) -> float | str:
    try:
        return milliseconds(captured(_population(members, device), device), device, seconds)
    except CannotCaptureError as error:
        return str(error)


def _population(members: int, device: torch.device) -> Step:
    """Returns a Global step of so many trainings."""
    weights = [nn.Parameter(torch.randn(members, b, a, device=device) / a**0.5) for a, b in pairwise(SIZES)]
    biases = [nn.Parameter(torch.zeros(members, b, device=device)) for b in SIZES[1:]]
    layers = list(zip(weights, biases, strict=True))
    parameters = [part for layer in layers for part in layer]
    optimizer = oho.OHO(parameters, oho.SGD(0.01, 1e-5), meta=oho.MetaSGD(1e-6), members=members, check=None)
    batches = [_images(members, 100, shape=(784,), device=device) for _ in range(2)]

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        for weight, bias in layers[:-1]:
            inputs = torch.tanh(oho.members.linear(inputs, weight, bias))
        return oho.members.cross_entropy(oho.members.linear(inputs, *layers[-1]), targets)

    return lambda: optimizer.step(lambda: losses(*batches[0]), lambda: losses(*batches[1]))


def _images(*lead: int, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.rand(*lead, *shape, device=device), torch.randint(10, lead, device=device)


LAYOUTS = {
    "float32": (False, torch.contiguous_format), "float32, channels last": (False, torch.channels_last),
    "TF32": (True, torch.contiguous_format), "TF32, channels last": (True, torch.channels_last),
}  # fmt: skip


def residual(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `residual`: the parts of a Global step of ResNet-18."""
    batch, held = (2, 2) if tiny else (100, 1000)
    table = Table(
        out, "residual", title="The parts of a step of ResNet-18", device=device,
        words=f"CIFAR-10's shape, 3x3 stem, batches of {batch} and {held}.  Milliseconds; a Global step has two products.",
        columns=("precision and layout", "gradient", "gradient and a product", "validation gradient", "the same in bf16",
                 "Global step", "graph", "peak memory, GiB", "asked"),
    )  # fmt: skip
    for name in list(LAYOUTS)[: 1 if tiny else None]:
        with _precision(tf32=LAYOUTS[name][0]):
            cells = partial(_residual_cells, LAYOUTS[name][1], device, (batch, held), 4 if tiny else 64, seconds / 40)
            table.measure(name, cells=cells)


@contextmanager
def _precision(*, tf32: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


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

    def in_bf16() -> None:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            found = loss(valid)
        torch.autograd.grad(found, parameters)

    def product() -> None:
        torch.autograd.grad(gradient(train, graph=True), parameters, directions)

    def optimizer_step() -> Step:
        optimizer = oho.OHO(model.parameters(), oho.SGD(0.01, 1e-4), meta=oho.MetaSGD(1e-7), check=None)
        return lambda: optimizer.step(lambda: loss(train), lambda: loss(valid))

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = [lambda: gradient(train), product, lambda: gradient(valid), in_bf16, optimizer_step()]
    found = [f"{milliseconds(step, device, seconds):.2f}" for step in timed]
    try:
        graph = f"{milliseconds(captured(optimizer_step(), device), device, seconds):.2f}"
    except CannotCaptureError as error:
        graph = str(error)
    peak = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else ""
    return [*found, graph, peak, f"Global ≤ {RESIDUAL_MILLISECONDS}"]
