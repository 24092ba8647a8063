"""The reverse-mode twin of an audit: repeats steps of a run in float64, and then differentiates them backwards.

    symbol  name       shape      meaning
    T       steps      ()         steps audited
    s       state      (M, N)     parameters and each slot
    a       adjoint    (M, N)     derivative of the last validation loss with respect to a state
    Z       influence  (K, M, N)  d(state)/dh that the run had before the first audited step
    h       values     (M, S)     a hyperparameter's values at each step, as the run moved them
    ε       shift      (M, S)     added to h at every step; the hypergradient is d(validation loss)/dε at 0

The twin starts at the state the run had T steps ago and repeats its T steps with the run's values of h.  Then it goes
back, one step at a time: the adjoint of a state is that of the next one, pulled back through the update rule and, by a
second backward pass, through the gradient.  Autograd differentiates the rule here, so that the twin shares nothing with
the run but the rule itself.  At the first step, the remaining adjoint is multiplied with Z: the influence that was
carried in counts as right, and an audit of a whole run, where Z = 0, takes nothing for granted.

Hyperparameters of the training loss enter where the gradient is taken, and the second backward pass goes on to them.  For
one that is tuned by its one-step hypergradient, only the last step counts.

With an average of the weights the states are one or two more (`AVERAGED`), and the adjoint starts at the average or, with
a share of the present weights, at both.

A discount multiplies the adjoint of every state, and a reset sets it to zero.  An influence limit is no part of a
derivative, so that an audit shows its effect where it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from oho.averages import Average
from oho.directions import Directions
from oho.engines.curvature import Closure
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters
from oho.rules import Rule, Slots, clip
from oho.sets import SetMap

Named = dict[str, Tensor]
AVERAGED = {"average": "the average", "iterate": "the iterate"}
"""The names of the states of an average among slots, by their names in `AveragedWeights`; no slot can have them."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The run before the first audited step, in float64.  `influence` has (K, M, N) by state; "" are the parameters."""

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
    """The shapes in which training closures are given the hyperparameters of the loss."""
    tuned: tuple[str, ...] = ()
    one_step: tuple[str, ...] = ()
    averaged: Named = field(default_factory=dict)
    average: Average | None = None
    present_share: float = 0.0
    steps: int = 0
    """The number of steps before the first audited one."""


class Twin:
    """Repeats the audited steps, forward and back.  A state is a mapping in which "" stands for the parameters."""

    def __init__(self, start: Start, values: list[Named], closures: Sequence[tuple[Closure, Closure]]):
        self.start, self.values, self.closures = start, values, closures

    def hypergradient(self) -> Named:
        """Returns the exact hypergradient (M, S) of each tuned hyperparameter."""
        start, states = self.start, [{"": self.start.theta, **self.start.slots, **self.start.averaged}]
        for step in range(len(self.closures)):
            gradient, used = self._gradient(states[step][""], self._training(step)[0])
            states.append(self._advance(states[step], gradient.detach(), self.values[step], step, used))
        shares = {AVERAGED["average"]: 1 - start.present_share, "": start.present_share} if start.averaged else {"": 1.0}
        judged = torch.stack([share * states[-1][name] for name, share in shares.items()]).sum(0)
        vector = self._gradient(judged, self.closures[-1][1])[0].detach()
        adjoint = {name: torch.zeros_like(value) for name, value in states[-1].items()}
        adjoint |= {name: share * vector for name, share in shares.items()}
        total = {name: torch.zeros_like(self.values[0][name]) for name in start.tuned}
        for step in reversed(range(len(self.closures))):
            if step in start.resets and step != len(self.closures) - 1:
                return total
            adjoint = self._back(states[step], adjoint, step, total)
        return {name: value + carried for (name, value), carried in zip(total.items(), self._carried(adjoint), strict=True)}

    def _training(self, step: int) -> tuple[Closure, Named]:
        """Returns the training closure of a step, and the tuned hyperparameters that it is given, as leaves of a graph."""
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
        """Returns the gradient (M, N) at θ, and a mask (N,) of the elements for which the loss has one."""
        parameters = self.start.parameters
        parameters.write(theta)
        with torch.enable_grad():
            with TwiceDifferentiable():
                loss = closure().sum()
            found = torch.autograd.grad(loss, parameters.tensors, create_graph=graph, allow_unused=True)
            used = [torch.full((size,), g is not None) for g, size in zip(found, parameters.sizes, strict=True)]
            return parameters.flatten(found), torch.cat(used).to(theta.device)

    def _advance(self, state: Named, gradient: Tensor, values: Named, step: int, used: Tensor) -> Named:
        """Applies the rule to one state, except where there is no gradient; then the average follows."""
        rule = self.start.rule
        spread = {name: self.start.set_map.spread(values[name]) for name in rule.names}
        iterate = AVERAGED["iterate"] if AVERAGED["iterate"] in state else ""
        before = {"": state[iterate], **{name: slot for name, slot in state.items() if name in self.start.slots}}
        slots = {name: slot for name, slot in before.items() if name}
        clipped = clip(gradient, value=rule.clip_value, norm=rule.clip_norm)
        theta, slots = rule(before[""], clipped, slots, spread, self.start.noise[step])
        moved = {"": theta, **slots}
        if not bool(used.all()):
            moved = {name: torch.where(used, moved[name], old) for name, old in before.items()}
        return moved if self.start.average is None else moved | self._follow(self.start.average, state, moved[""], step)

    def _follow(self, average: Average, state: Named, theta: Tensor, step: int) -> Named:
        """Returns the average after θ has moved and, for Schedule-Free, the weights between the two and the iterate."""
        old, share = state[AVERAGED["average"]], average.interpolation
        mean = old + average.weight(self.start.steps + step + 1) * (theta - old)
        between = {} if share is None else {"": theta + share * (mean - theta), AVERAGED["iterate"]: theta}
        return {AVERAGED["average"]: mean} | between

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
