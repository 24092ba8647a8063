"""Whether hypergradients are right on the device: float64, against reverse mode, the CPU, a graph and single members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import oho
from bench.measure.gpu.graphs import captured_step
from bench.measure.gpu.models import MODELS, data
from bench.measure.gpu.tables import Table
from oho.engines.names import ENGINES
from oho.rules import Rule

STEPS, MEMBERS = 8, 3
ASKED = {"reverse": "≤ 1e-8", "finite_difference": "≤ 1e-4", "same": "≤ 1e-9"}
RULES: dict[str, Rule] = {
    "SGD": oho.SGD(lr=0.05, weight_decay=0.02),
    "momentum": oho.Momentum(lr=0.05, weight_decay=0.02, tune=oho.Momentum.names),
    "Adam": oho.Adam(lr=0.01, weight_decay=0.02),
    "AdamW": oho.AdamW(lr=0.01, weight_decay=0.02),
}
COLUMNS = ("model", "rule", "products asked of", "what", "largest relative error", "asked", "products answered by")


Found = tuple[float, str]
"""The largest relative error, and the engine that answered for products: another one where the one asked for cannot."""


def correctness(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `correctness`."""
    table = Table(
        out, "correctness", title="Whether hypergradients are right", device=device, columns=COLUMNS,
        words=f"float64, {STEPS} steps, cuDNN's recurrences and fused attention off: they have no second derivative.",
    )  # fmt: skip
    models, rules = (list(known)[: 1 if tiny else None] for known in (MODELS, RULES))
    sgd, same, own, cpu = RULES["SGD"], ASKED["same"], "pearlmutter", torch.device("cpu")

    def add(model: str, rule: str, engine: str, what: str, asked: str, found: Callable[..., Found], *given: object) -> None:
        def cells() -> list[str]:
            error, answered_by = found(*given)
            return [f"{error:.1e}", asked, answered_by]

        table.measure(model, rule, engine, what, cells=cells)

    with _differentiable():
        for name in models:
            for engine in ENGINES:
                asked = ASKED["finite_difference" if engine == "finite_difference" else "reverse"]
                add(name, "SGD", engine, "reverse mode", asked, _audited, name, sgd, engine, device)
        for rule in rules[1:]:
            given = "perceptron", RULES[rule], own, device
            add("perceptron", rule, own, "reverse mode", ASKED["reverse"], _audited, *given)
        for name in models:
            add(name, "SGD", own, "the CPU", same, _between_devices, name, device, cpu)
        perceptrons = [("perceptron", rule) for rule in rules] + [("wide perceptron", "SGD")]
        for name, rule in perceptrons:
            add(name, rule, own, "members alone", same, _members_against_single, name, RULES[rule], device)
        graphed = [("perceptron", rule) for rule in rules] + [(name, "SGD") for name in models[1:]]
        for name, rule in graphed:
            add(name, rule, own, "eager against graph", same, _graph_against_eager, name, RULES[rule], device)
            found = partial(_graph_against_eager, look_ahead=True)
            add(name, rule, own, "eager against graph, looking ahead", same, found, name, RULES[rule], device)
        for name, rule in perceptrons:
            found = partial(_graph_against_eager, members=True)
            add(name, rule, own, "eager members against graph", same, found, name, RULES[rule], device)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Has PyTorch use only kernels that can be differentiated twice."""
    backend = torch.nn.attention.SDPBackend.MATH
    with torch.nn.attention.sdpa_kernel(backend), torch.backends.cudnn.flags(enabled=False):
        yield


def _model(name: str, device: torch.device, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MODELS[name]().to(device, torch.float64)


def _closures(model: nn.Module, device: torch.device) -> list[tuple]:
    """Returns the closures of each step: training batches in turn, and always the same validation batch."""
    *batches, held = data(STEPS + 1, device)

    def of(batch: tuple[Tensor, Tensor]):
        return lambda: functional.cross_entropy(model(batch[0]), batch[1])

    return [(of(batch), of(held)) for batch in batches]


def _audited(name: str, rule: Rule, engine: str, device: torch.device) -> Found:
    """Returns the error of the last step's hypergradients; the values stay where they are."""
    model = _model(name, device)
    optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(0.0), curvature=engine, check=None)
    return _worst(oho.audit(model, optimizer, _closures(model, device)).relative_error), optimizer.engine


def _between_devices(name: str, ours: torch.device, theirs: torch.device) -> Found:
    """Returns how far the hypergradients of one training are apart on two devices."""
    here = _trained(name, ours)
    return _difference(here.hypergradient, _trained(name, theirs).hypergradient), here.engine


def _trained(name: str, device: torch.device) -> oho.OHO:
    model = _model(name, device)
    optimizer = oho.OHO(model.parameters(), RULES["SGD"], meta=oho.MetaSGD(1e-3), check=None)
    for train, valid in _closures(model, device):
        optimizer.step(train, valid)
    return optimizer


def _members_against_single(name: str, rule: Rule, device: torch.device) -> Found:
    """Returns how three perceptrons as one population differ from each of them alone, in their hypergradients."""
    together, losses = _population(name, rule, device)
    models = [_model(name, device, seed) for seed in range(MEMBERS)]
    singles = [oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(1e-3), check=None) for model in models]
    *batches, held = data(STEPS + 1, device)
    for batch in batches:
        together.step(lambda batch=batch: losses(*_each(batch)), lambda: losses(*_each(held)))
        for model, single in zip(models, singles, strict=True):
            single.step(
                lambda model=model, batch=batch: functional.cross_entropy(model(batch[0]), batch[1]),
                lambda model=model: functional.cross_entropy(model(held[0]), held[1]),
            )
    found = together.hypergradient
    alone = {name: torch.stack([single.hypergradient[name] for single in singles]) for name in found}
    return _difference(found, alone), together.engine


def _population(name: str, rule: Rule, device: torch.device) -> tuple[oho.OHO, Callable[..., Tensor]]:
    """Returns the optimizer of three perceptrons together, and their losses on stacked batches."""
    models = [_model(name, device, seed) for seed in range(MEMBERS)]
    tensors = zip(*(model.parameters() for model in models), strict=True)
    parameters = [nn.Parameter(torch.stack([p.detach() for p in same])) for same in tensors]
    first, second = parameters[:2], parameters[2:]

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        hidden = torch.tanh(oho.members.linear(inputs, *first))
        return oho.members.cross_entropy(oho.members.linear(hidden, *second), targets)

    return oho.OHO(parameters, rule, meta=oho.MetaSGD(1e-3), members=MEMBERS, check=None), losses


def _each(batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Returns the batch once for each member."""
    return [part.expand(MEMBERS, *part.shape) for part in batch]


def _graph_against_eager(
    name: str, rule: Rule, device: torch.device, *, members: bool = False, look_ahead: bool = False
) -> Found:
    """Returns how far a training that replays a graph is from the same steps made eagerly, in its hypergradients.

    On a CPU, a stand-in for graphs checks that one would repeat the steps.
    """
    known = data(STEPS + 1, device)
    first, held = ((_each(batch) if members else batch) for batch in (known[0], known[-1]))

    def made() -> tuple[oho.OHO, Callable[..., Tensor]]:
        if members:
            return _population(name, rule, device)
        model = _model(name, device)
        unused = torch.Generator()  # on the CPU, from which a graph cannot draw
        optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(1e-3), generator=unused, check=None)
        return optimizer, lambda inputs, targets: functional.cross_entropy(model(inputs), targets)

    (graphed, graphs_loss), (eager, loss) = made(), made()
    batches, stand_in = (first, held), device.type != "cuda"
    replay = captured_step(graphed, graphs_loss, batches, device, look_ahead=look_ahead, stand_in=stand_in)
    for _ in range(STEPS):
        replay()
    for _ in range(graphed.steps):
        eager.step(lambda: loss(*first), lambda: loss(*held))
    return _difference(graphed.hypergradient, eager.hypergradient), graphed.engine


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    return _worst({name: ((ours[name].cpu() - each.cpu()) / each.cpu()).abs() for name, each in theirs.items()})


def _worst(errors: Mapping[str, Tensor]) -> float:
    return max(float(error.abs().max()) for error in errors.values())


