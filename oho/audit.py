"""How far a run's hypergradient is from the derivative: the last steps once more, in float64 and in reverse.

    symbol  name       shape      meaning
    T       steps      ()         steps audited
    s       state      (M, N)     parameters and each slot
    a       adjoint    (M, N)     derivative of the last validation loss with respect to a state
    Z       influence  (K, M, N)  d(state)/dh that the run had carried to the first audited step
    h       values     (M, S)     a hyperparameter's values at each step, as the run moved them
    ε       shift      (M, S)     added to h at every step; the hypergradient is d(validation loss)/dε at 0

The twin starts at the state the run had T steps ago and repeats its T steps with the run's values of h.  Then it goes
back, a step at a time: the adjoint of a state is that of the next one, taken through the update rule and, by a second
backward pass, through the gradient.  Autograd differentiates the rule here, so that nothing is shared with the way
forward but the rule itself.  At the first step what is left of the adjoint meets Z: what was carried in counts as right,
and an audit of a whole run, Z = 0, takes nothing for granted.

That second backward pass is itself compared with central differences of gradients, once: an audit by a wrong one would
agree with a run that made the same mistake.

Hyperparameters of the training loss enter where the gradient is taken: the second backward pass goes on to them.  Of one
that is tuned by its one-step hypergradient, the last step alone counts.

A discount multiplies the adjoint of every state, a reset sets it to zero.  An influence limit is no part of a derivative:
where it acts, the audit shows what it does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from oho.directions import Directions
from oho.engines.comparison import Comparison, compare
from oho.engines.curvature import Closure, double_backward
from oho.engines.repetition import Repeatable
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters
from oho.float64_closures import Replayed, in_float64, wide
from oho.optimizer import OHO
from oho.published import PublishedOHO
from oho.rules import SGD, Rule, Slots, clip
from oho.sets import SetMap

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Audit:
    """`found` is the run's hypergradient after the last audited step, `exact` the twin's; (S,) or (M, S) by name.

    `labels` are what the S sets are called; values `of_loss` have a line for each component.  `product` compares one
    Hessian-vector product of the twin with central differences of gradients, at the first audited step.
    """

    steps: int
    found: Named
    exact: Named
    labels: tuple[Hashable, ...]
    product: Comparison
    of_loss: frozenset[str] = frozenset()

    @property
    def relative_error(self) -> Named:
        """Returns |found − exact| / |exact| for each set; NaN where both are 0 (a set of unused parameters)."""
        return {name: (self.found[name] - exact).abs() / exact.abs() for name, exact in self.exact.items()}

    def __str__(self) -> str:
        """Returns a table with a line for each hyperparameter, set and member."""
        names = [" ".join(map(str, label)) if isinstance(label, tuple) else str(label) for label in self.labels]
        width = max(map(len, ("set", *names)))
        lines = [f"{'hyperparameter':<16} {'set':<{width}} {'hypergradient':>16} {'exact':>16} {'relative error':>15}"]
        for name, exact in self.exact.items():
            called = map(str, range(exact.shape[-1] if exact.ndim else 1)) if name in self.of_loss else names
            rows = zip(
                itertools.cycle(called), self.found[name].flatten(), exact.flatten(), self.relative_error[name].flatten(),
                strict=False,
            )  # fmt: skip
            lines += [f"{name:<16} {label:<{width}} {f:>16.8g} {e:>16.8g} {r:>15.2e}" for label, f, e, r in rows]
        check = f"{self.product.verdict}, relative error {self.product.error:.1e}"
        return "\n".join([*lines, f"a product of the twin against central differences of gradients: {check}"])


def audit(model: nn.Module, optimizer: OHO | PublishedOHO, steps: Iterable[tuple[Closure, Closure]]) -> Audit:
    """Takes the optimizer through `steps`, as the run would, and compares its last hypergradient with the twin's.

    Sets whose gradient is nothing but round-off (biases before a batch norm) differ by any amount, and under Adam make
    others differ.

    Args:
        model: what the closures compute with; all parameters of the optimizer are its own.
        optimizer: at any point of a run.  It and the model are left as after `optimizer.step` on each of `steps`.
        steps: (train_closure, valid_closure) of each step; the last step must be one with a meta-step.  In a loop, bind
            the batch: `lambda batch=batch: ...`.

    Raises:
        TypeError: for something else instead of these.
        ValueError: for no steps, nothing tuned, a last step without a meta-step, a parameter the model lacks, or a
            `PublishedOHO` of the variant "layerwise", whose update none of our rules makes; for parameters of several
            types, or a model that draws random numbers in a way that cannot be repeated (rrelu); for a model whose second
            derivative is wrong, so that no twin can be made of it.
    """
    if not isinstance(model, nn.Module) or not isinstance(optimizer, OHO | PublishedOHO):
        given = f"{type(model).__name__} and {type(optimizer).__name__}"
        raise TypeError(f"audit: a model and its oho.OHO are expected, given {given}")
    steps = list(steps)
    if not all(isinstance(pair, tuple) and len(pair) == 2 and all(map(callable, pair)) for pair in steps):
        raise TypeError("audit: each step must be a pair (train_closure, valid_closure)")
    device = optimizer._flat.tensors[0].device
    pairs = [(Replayed(train, model, device), Replayed(valid, model, device)) for train, valid in steps]
    _check(model, optimizer, len(pairs))
    product = _compared(pairs[0][0], optimizer)
    start, values = _start(optimizer, len(pairs)), []
    for train, valid in pairs:
        values.append(_values(optimizer))
        optimizer.step(train, valid)
    for closure in itertools.chain.from_iterable(pairs):
        closure.replaying = True
    with in_float64(model) as dtype, wide(dtype):
        exact = _Twin(start, values, pairs).hypergradient()
    found = {name: value.double() for name, value in optimizer.hypergradient.items()}
    exact = {name: exact[name].view_as(value) for name, value in found.items()}
    return Audit(len(pairs), found, exact, optimizer.set_map.labels, product, frozenset(start.arguments))


@dataclass(frozen=True)
class _Start:
    """The run before the first audited step, in float64.  `influence` holds (K, M, N) by state, "" for the parameters."""

    parameters: FlatParameters
    set_map: SetMap
    rule: Rule
    theta: Tensor
    slots: Slots
    influence: Named
    directions: Directions
    noise: list[Tensor | None]
    discount: float = 1.0
    resets: frozenset[int] = frozenset()
    """Audited steps, counted from 0, after which the influence is set to zero."""
    arguments: dict[str, torch.Size] = field(default_factory=dict)
    """Shapes in which training closures are given the hyperparameters of the loss."""
    tuned: tuple[str, ...] = ()
    one_step: tuple[str, ...] = ()


def _start(optimizer: OHO | PublishedOHO, count: int) -> _Start:
    parameters, theta = optimizer._flat, optimizer._flat.gather()
    if isinstance(optimizer, PublishedOHO):
        tangents = torch.stack([parameters.flatten(tangent) for tangent in optimizer._tangents.values()])
        rule, influence = SGD(lr=0.0), {"": tangents.double()}
        collapsed = Directions(dict.fromkeys(rule.tune, ()), exact=False)
        return _Start(
            parameters, optimizer.set_map, rule, theta.double(), {}, influence, collapsed, [None] * count, tuned=rule.tune
        )
    state = optimizer.state_dict()
    noise = [optimizer._recursion.noise(theta) for _ in range(count)]
    for generator, saved in zip(optimizer._recursion.generators, state["generators"], strict=True):
        generator.set_state(saved)
    every = optimizer.reset_every
    return _Start(
        parameters,
        optimizer.set_map,
        optimizer.rule,
        theta.double(),
        {name: slot.double() for name, slot in state["slots"].items()},
        {"": state["influence"]["theta"].double()} | {n: t.double() for n, t in state["slot_influence"].items()},
        optimizer._recursion.directions,
        [None if xi is None else xi.double() for xi in noise],
        optimizer.discount,
        frozenset(step for step in range(count) if every and (optimizer.steps + step + 1) % every == 0),
        {name: argument.shape for name, argument in optimizer._loss.arguments.given.items()},
        optimizer._recursion.tuning.tuned,
        optimizer._loss.one_step,
    )


class _Twin:
    """Makes the audited steps once more, forward and back.  A state is a mapping, "" being the parameters."""

    def __init__(self, start: _Start, values: list[Named], closures: Sequence[tuple[Closure, Closure]]):
        self.start, self.values, self.closures = start, values, closures

    def hypergradient(self) -> Named:
        """Returns the exact hypergradient (M, S) of each tuned hyperparameter."""
        start, states = self.start, [{"": self.start.theta, **self.start.slots}]
        for step in range(len(self.closures)):
            gradient, used = self._gradient(states[step][""], self._training(step)[0])
            states.append(self._advance(states[step], gradient.detach(), self.values[step], step, used))
        vector = self._gradient(states[-1][""], self.closures[-1][1])[0].detach()
        adjoint = {name: torch.zeros_like(value) for name, value in states[-1].items()} | {"": vector}
        total = {name: torch.zeros_like(self.values[0][name]) for name in start.tuned}
        for step in reversed(range(len(self.closures))):
            if step in start.resets and step != len(self.closures) - 1:
                return total
            adjoint = self._back(states[step], adjoint, step, total)
        return {name: value + carried for (name, value), carried in zip(total.items(), self._carried(adjoint), strict=True)}

    def _training(self, step: int) -> tuple[Closure, Named]:
        """Returns the training closure of a step, and what it is given: tensors whose gradient can be taken."""
        start = self.start
        closure: Callable[..., Tensor] = self.closures[step][0]
        if not start.arguments:
            return closure, {}
        given = {
            name: self.values[step][name].reshape(shape).requires_grad_(name in start.tuned)
            for name, shape in start.arguments.items()
        }
        return partial(closure, given), {name: value for name, value in given.items() if name in start.tuned}

    def _gradient(self, theta: Tensor, closure: Closure, *, graph: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the gradient (M, N) at θ, and where (N,) the loss has one at all."""
        parameters = self.start.parameters
        parameters.write(theta)
        with torch.enable_grad():
            with TwiceDifferentiable():
                loss = closure().sum()
            found = torch.autograd.grad(loss, parameters.tensors, create_graph=graph, allow_unused=True)
            used = [torch.full((size,), g is not None) for g, size in zip(found, parameters.sizes, strict=True)]
            return parameters.flatten(found), torch.cat(used).to(theta.device)

    def _advance(self, state: Named, gradient: Tensor, values: Named, step: int, used: Tensor) -> Named:
        """Applies the rule to one state; what has no gradient stays."""
        rule = self.start.rule
        spread = {name: self.start.set_map.spread(values[name]) for name in rule.names}
        slots = {name: slot for name, slot in state.items() if name}
        clipped = clip(gradient, value=rule.clip_value, norm=rule.clip_norm)
        theta, slots = rule(state[""], clipped, slots, spread, self.start.noise[step])
        moved = {"": theta, **slots}
        return moved if bool(used.all()) else {n: torch.where(used, moved[n], old) for n, old in state.items()}

    def _back(self, state: Named, adjoint: Named, step: int, total: Named) -> Named:
        """Returns the adjoint of the state before a step, and adds what the step's own values contribute to `total`."""
        closure, given = self._training(step)
        gradient, used = self._gradient(state[""], closure, graph=True)
        with torch.enable_grad():
            leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
            values = {name: self.values[step][name].clone().requires_grad_() for name in self.start.rule.names}
            leaf = gradient.detach().requires_grad_()
            moved = self._advance(leaves, leaf, values, step, used)
            inputs = [*leaves.values(), leaf, *values.values()]
            outputs = [moved[name] for name in adjoint]
            shaped = [a.expand_as(out) for a, out in zip(adjoint.values(), outputs, strict=True)]
            parts = iter(torch.autograd.grad(outputs, inputs, shaped, allow_unused=True, materialize_grads=True))
        before = {name: next(parts) for name in leaves}
        product, of_loss = self._second(gradient, next(parts), given)
        before[""] = before[""] + product
        for name, part in of_loss.items():
            if name not in self.start.one_step or step == len(self.closures) - 1:
                total[name] += part.view_as(total[name])
        for name in values:
            part = next(parts)
            if name in total:
                total[name] += part
        return {name: self.start.discount * value for name, value in before.items()}

    def _second(self, gradient: Tensor, vector: Tensor, given: Named) -> tuple[Tensor, Named]:
        """Returns the Hessian of the training loss times `vector` (M, N), and the derivative of g · vector in `given`."""
        if not gradient.requires_grad:
            return torch.zeros_like(vector), {}
        parameters = self.start.parameters
        inputs, count = (*parameters.tensors, *given.values()), len(parameters.tensors)
        found = torch.autograd.grad(gradient, inputs, vector, allow_unused=True)
        of_given = zip(given, found[count:], strict=True)
        return parameters.flatten(found[:count]), {name: part for name, part in of_given if part is not None}

    def _carried(self, adjoint: Named) -> list[Tensor]:
        """Returns a · Z for each tuned hyperparameter, (M, S) or (M, V)."""
        start, total = self.start, {name: torch.zeros_like(value) for name, value in self.values[0].items()}
        for name, influence in start.influence.items():
            vector = adjoint[name].expand(influence.shape[1:])
            for tuned, sums in start.directions.hypergradients(influence, vector, start.set_map).items():
                total[tuned] = total[tuned] + sums
        return [total[name] for name in start.tuned]


def _compared(closure: Closure, optimizer: OHO | PublishedOHO) -> Comparison:
    """Compares a product by a second backward pass, as the twin makes them; raises ValueError for a wrong one."""
    parameters = optimizer._flat
    if isinstance(optimizer, OHO):
        (closure,) = optimizer._loss.bound([closure], optimizer._recursion.tuning.values)
        parameters = optimizer._loss.arguments.extended
    again = Repeatable(closure, parameters.tensors[0].device)
    try:
        found = compare(lambda closure, z: double_backward(closure, parameters, z), again, parameters)
    finally:
        again.undo()
    if found.verdict == "wrong":
        raise ValueError(
            "audit: the second derivative of this model is wrong, and no twin can be made of it: a product differs from"
            f" central differences of gradients by {found.worst}; oho.check names the operation"
        )
    if found.verdict == "unrepeatable":
        raise ValueError(
            f"audit: a training closure returned {found.losses[0]:.6g} and, called again, {found.losses[1]:.6g}; allowed is"
            " one that computes the loss of the same batch anew"
        )
    return found


def _values(optimizer: OHO | PublishedOHO) -> Named:
    """Returns present values (M, S) or (M, V) in float64, copied."""
    if isinstance(optimizer, PublishedOHO):
        return {name: value.double().unsqueeze(0) for name, value in optimizer.hyper.items()}
    return {name: value.to(torch.float64, copy=True) for name, value in optimizer._recursion.tuning.values.items()}


def _check(model: nn.Module, optimizer: OHO | PublishedOHO, count: int) -> None:
    if count == 0:
        raise ValueError("audit: no steps were given; give the (train_closure, valid_closure) of each step to audit")
    if isinstance(optimizer, OHO) and not optimizer._recursion.tuning.tuned:
        raise ValueError("audit: the optimizer tunes nothing, so that there is no hypergradient")
    if isinstance(optimizer, PublishedOHO) and optimizer.variant == "layerwise":
        raise ValueError("audit: the published layer-wise update decays no biases, and none of our rules makes it")
    if isinstance(optimizer, OHO) and (rest := (optimizer.steps + count) % optimizer.update_every):
        raise ValueError(
            f"audit: the last of {count} steps has no meta-step (update_every={optimizer.update_every});"
            f" give {optimizer.update_every - rest} more"
        )
    if len(kinds := {p.dtype for p in model.parameters() if p.is_floating_point()}) > 1:
        names = ", ".join(sorted(map(str, kinds)))
        raise ValueError(f"audit: the model's parameters have several types ({names}); convert the model to one")
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(tensor) not in own for tensor in optimizer._flat.tensors):
        raise ValueError("audit: the optimizer has parameters that are not the model's; give the model it was made for")
