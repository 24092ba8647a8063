"""The models of several trainings as one: their parameters, their batches and their evaluations stacked.

    symbol  name        shape          meaning
    M       members     ()             trainings side by side
    N       size        ()             trained elements of one model
    B       batch       ()             examples of one batch
    θ       parameters  (M, N)         row m holds the parameters of member m, of which its own model's are views

Since each model's parameters are views, a member's own state is up to date after every step, and nothing has to be copied
to evaluate, save or end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

import oho
from bench.protocol.batch_norm import has_batch_norm
from bench.protocol.loss_hyper import changed_inputs, of_objective
from bench.protocol.noise import Noise
from bench.protocol.objective import Evaluation
from bench.protocol.task import EVALUATION_ELEMENTS, Batches, Split, Task

ELEMENTWISE = (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU, nn.Identity)
"""Layers that compute each number from one number, without parameters: they take stacked inputs as they are."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
EVALUATED_TOGETHER = 16
"""A GPU evaluates so many members at once on as many examples each as it would a single model; more members, on fewer."""
PROBE_EXAMPLES = 4
"""Examples on which a stacked model has to agree with each member's own."""
AGREEMENT = 1e-3
"""The largest difference that rounding explains there, relative to the largest output."""

Tensors = Mapping[str, Tensor]
Layer = Callable[[Tensors, Tensor], Tensor]
"""(parameters of all members by name, stacked inputs) -> stacked outputs."""


class CannotStackError(ValueError):
    """Trainings cannot be made as one batch; the message says why."""


class Stacked:
    """The models of M trainings.  Calling it with inputs (M, B, ...) returns the outputs (M, B, ...).

    `tensors[name]` (M, ...) are leaves of autograd that share their memory with `theta` and with the models' parameters.

    Raises:
        CannotStackError: for a task or a model that has a random or a changing part, or that `torch.func` cannot map.
    """

    def __init__(self, tasks: Sequence[Task], models: Sequence[nn.Module]):
        if reason := why_not(tasks[0], models[0]):
            raise CannotStackError(reason)
        self.tasks, self.models = tasks, list(models)
        named = [dict(model.named_parameters()) for model in models]
        self.names = tuple(named[0])
        sizes = [parameter.numel() for parameter in named[0].values()]
        ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        self.theta = flat_rows(each.values() for each in named)
        self.tensors: dict[str, Tensor] = {}
        with torch.no_grad():
            for (name, parameter), (start, stop) in zip(named[0].items(), pairwise(ends), strict=True):
                tensor = self.theta[:, start:stop].view(len(models), *parameter.shape)
                self.tensors[name] = tensor.detach().requires_grad_()
                for each, own in zip(named, tensor, strict=True):
                    each[name].data = own
        layers = _layers(models[0])
        self._forward = self._agreeing([*([] if layers is None else [partial(layers, self.tensors)]), self._mapped])

    @torch.no_grad()
    def replace(self, index: int, model: nn.Module) -> None:
        """Puts another model, of the same kind, in a member's place."""
        for name, parameter in model.named_parameters():
            own = self.tensors[name].detach()[index]
            own.copy_(parameter)
            parameter.data = own
        self.models[index] = model

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns the outputs (M, B, ...) of inputs (M, B, ...)."""
        return self._forward(inputs)

    def parts(self, rows: Tensor) -> list[list[Tensor]]:
        """Returns for each member its row of (M, N) as views, one for each parameter."""
        shapes = [tensor.shape[1:] for tensor in self.tensors.values()]
        divided = [row.split([shape.numel() for shape in shapes]) for row in rows]
        return [[part.view(shape) for part, shape in zip(row, shapes, strict=True)] for row in divided]

    @contextmanager
    def holding(self, weights: Sequence[Mapping[str, Tensor]]) -> Iterator[None]:
        """Puts each member's weights, by name, into the models for a block."""
        present = self.theta.clone()
        self.theta.copy_(flat_rows([[each[name] for name in self.names] for each in weights]))
        try:
            yield
        finally:
            self.theta.copy_(present)

    def losses(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Returns each member's mean loss (M,) of a stacked batch, differentiable."""
        return self.tasks[0].objective.member_losses(self(batch[0]), batch[1])

    def training_losses(
        self, batch: tuple[Tensor, Tensor], noises: Sequence[Noise], hyper: Mapping[str, Tensor]
    ) -> Tensor:
        """Returns what `Task.training_loss` does for each member (M,), with values (M,) of what is tuned of the loss.

        `noises` are those of the members' batches.
        """
        offered, (inputs, targets) = self.tasks[0].tunable, batch
        if any(each.of_inputs is not None and each.name in hyper for each in offered):
            inputs = torch.stack([
                changed_inputs(own, noise, offered, {name: value[index] for name, value in hyper.items()})
                for index, (own, noise) in enumerate(zip(inputs, noises, strict=True))
            ])  # fmt: skip
        return self.tasks[0].objective.tuned_member_losses(self(inputs), targets, of_objective(offered, hyper))

    @torch.no_grad()
    def evaluate(self, splits: Sequence[Split]) -> list[Evaluation]:
        """Returns loss and metric of each member over its own split, of which all have one size."""
        objective, first, seen = self.tasks[0].objective, splits[0], self.tasks[0].world.seen
        count = len(first.targets)
        size = self.tasks[0].evaluation_examples or max(1, EVALUATION_ELEMENTS // first.inputs[0].numel())
        together = 1 if self.tasks[0].device.type == "cpu" else EVALUATED_TOGETHER
        totals = torch.zeros(2, len(splits), dtype=torch.float64, device=first.targets.device)
        for start in range(0, count, size := max(1, min(size, size * together // len(splits)))):
            place = slice(start, start + size)
            inputs = stack([split.inputs[place] for split in splits], seen)
            targets = stack([split.targets[place] for split in splits])
            totals += torch.stack(objective.member_totals(self(inputs), targets))
        numbers = first.targets.numel()
        return [objective.evaluation(loss, error, numbers) for loss, error in totals.T.tolist()]

    def _agreeing(self, forwards: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        """Returns the first of the functions that computes what the members' own models do."""
        inputs, reason = self.tasks[0].train.inputs[:PROBE_EXAMPLES], ""
        with torch.no_grad():
            expected = torch.stack([model(inputs) for model in self.models])
            for forward in forwards:
                try:
                    found = forward(inputs.expand(len(self.models), *inputs.shape))
                except RuntimeError as error:
                    reason = str(error).splitlines()[0]
                    continue
                if found.shape == expected.shape and _differ_by_rounding(found, expected):
                    return forward
                reason = "stacked, it computes something else"
        raise CannotStackError(f"its network cannot be stacked: {reason}")

    def _mapped(self, inputs: Tensor) -> Tensor:
        model = self.models[0]
        return vmap(lambda parameters, own: functional_call(model, parameters, (own,)))(self.tensors, inputs)


def why_not(task: Task, model: nn.Module) -> str | None:
    """Returns why trainings of a task cannot be made as one batch, or None if nothing is known against it."""
    if task.noisy:
        return "its network draws noise"
    if has_batch_norm(model):
        return "its network has batch norm"
    if task.device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return "its network has convolutions, which take no less time together on a CPU"
    if any(not parameter.requires_grad for parameter in model.parameters()):
        return "its network has frozen parameters"
    return None


def _differ_by_rounding(found: Tensor, expected: Tensor) -> bool:
    """Returns whether outputs do, or are both not finite, as those of a training about to diverge."""
    largest = float(expected.abs().nan_to_num().max())
    return torch.allclose(found, expected, rtol=0, atol=AGREEMENT * largest + 1e-6, equal_nan=True)


def _as_it_is(part: Tensor) -> Tensor:
    return part


def stack(parts: Sequence[Tensor], seen: Callable[[Tensor], Tensor] = _as_it_is) -> Tensor:
    """Returns `seen` of tensors, stacked: as a view if all of them are the same memory."""
    first = parts[0]
    if all(part.data_ptr() == first.data_ptr() and part.shape == first.shape for part in parts):
        return seen(first).expand(len(parts), *first.shape)
    return torch.stack([seen(part) for part in parts])


def flat_rows(members: Iterable[Iterable[Tensor]]) -> Tensor:
    """Returns each member's tensors, flattened, as a row of (M, N)."""
    return torch.stack([torch.cat([part.detach().flatten() for part in parts]) for parts in members])


def _layers(model: nn.Module) -> Layer | None:
    """Returns the function of a sequence of linear and elementwise layers, or None for another model."""
    layers = list(model.named_children()) if isinstance(model, nn.Sequential) else []
    steps: list[Layer] = []
    for name, layer in layers:
        if type(layer) is nn.Linear and layer.bias is not None:
            steps.append(partial(_linear, name))
        elif type(layer) in ELEMENTWISE:
            steps.append(partial(_elementwise, layer))
        elif type(layer) is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1:
            steps.append(_flattened)
        else:
            return None

    def forward(tensors: Tensors, x: Tensor) -> Tensor:
        for step in steps:
            x = step(tensors, x)
        return x

    return forward if steps else None


def _linear(name: str, tensors: Tensors, x: Tensor) -> Tensor:
    return oho.members.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _elementwise(layer: nn.Module, tensors: Tensors, x: Tensor) -> Tensor:
    return layer(x)


def _flattened(tensors: Tensors, x: Tensor) -> Tensor:
    return x.flatten(2)


class StackedBatches:
    """The batches of M trainings at one step, each in the order of its own seed, in the world that all of them share."""

    def __init__(self, batches: Sequence[Batches]):
        self._batches = batches
        first = batches[0].split
        self._shared = first if all(each.is_plain and each.split is first for each in batches) else None
        self._epoch, self._orders = -1, torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns inputs (M, B, ...) and targets (M, B, ...) of step `step`."""
        if self._shared is None:
            found = [each.at(step) for each in self._batches]
            return torch.stack([batch.inputs for batch in found]), torch.stack([batch.targets for batch in found])
        epoch, place = self._batches[0].place(step)
        if epoch != self._epoch:
            self._epoch, self._orders = epoch, torch.stack([each.order(epoch) for each in self._batches])
        chosen = self._orders[:, place]
        inputs, targets = (_gathered(part, chosen) for part in self._shared)
        world = self._batches[0].world
        return world.seen(inputs.flatten(0, 1)).view_as(inputs) if world.drifts else inputs, targets

    def at_each(self, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns the same of members at steps of their own."""
        if len(set(steps)) == 1:
            return self.at(steps[0])
        found = [each.at(step) for each, step in zip(self._batches, steps, strict=True)]
        return torch.stack([batch.inputs for batch in found]), torch.stack([batch.targets for batch in found])

    def noises(self, step: int) -> list[int]:
        """Returns the seeds of the noise that is drawn for the batches of step `step`."""
        return [each.noise(step) for each in self._batches]


def _gathered(part: Tensor, chosen: Tensor) -> Tensor:
    return part.index_select(0, chosen.flatten()).view(*chosen.shape, *part.shape[1:])
