"""How far a run's hypergradient is from the derivative: its last steps repeated in float64 and differentiated in reverse.

The twin of `oho.reverse_twin` starts at the state the run had some steps ago and repeats its steps with the run's values of
the hyperparameters.  Its second backward pass is itself compared with central differences of gradients, once: an audit by
a wrong one would agree with a run that made the same mistake.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from oho.directions import Directions
from oho.engines.comparison import Comparison, compare
from oho.engines.curvature import Closure, double_backward
from oho.engines.repetition import Repeatable
from oho.float64_closures import Replayed, in_float64, wide
from oho.optimizer import OHO
from oho.published import PublishedOHO
from oho.reverse_twin import AVERAGED, Named, Start, Twin
from oho.rules import SGD
from oho.step_kinds import HORIZON


@dataclass(frozen=True)
class Audit:
    """`found` is the run's hypergradient after the last audited step, `exact` the twin's; (S,) or (M, S) by name.

    `steps` is the number of audited steps.  `labels` name the S sets; hyperparameters `of_loss` have components in place of
    sets.  `product` compares one Hessian-vector product of the twin with central differences of gradients, at the first
    audited step.
    """

    steps: int
    found: Named
    exact: Named
    labels: tuple[Hashable, ...]
    product: Comparison
    of_loss: frozenset[str] = frozenset()

    @property
    def relative_error(self) -> Named:
        """|found − exact| / |exact| for each set; NaN where both are 0 (a set of unused parameters) or it is not tuned."""
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


def audit(model: nn.Module, optimizer: OHO | PublishedOHO, steps: Iterable[tuple[Closure, ...]]) -> Audit:
    """Takes the optimizer through `steps`, as the run would, and compares its last hypergradient with the twin's.

    Printed, the result is a table.  Sets whose gradient is nothing but round-off (biases before a batch norm) differ by any
    amount, and under Adam they make others differ.

    Args:
        model: what the closures compute with; all parameters of the optimizer are its own.
        optimizer: at any point of a run.  It and the model are left as after `optimizer.step` on each of `steps`.
        steps: (train_closure, valid_closure) for each step, and its curvature_closure as a third where it has one.  The
            twin takes products of the whole batch even then, and differentiates steps that are not tuned as well; it has
            all of the Hessian and every influence, whatever `curvature_factor` and `tuned_after` are.  The
            last step must make a meta-step.  In a loop, bind the batch: `lambda batch=batch: ...`.

    Raises:
        TypeError: for arguments of other kinds.
        ValueError: for no steps, nothing tuned, a last step without a meta-step, a parameter the model lacks, or a
            `PublishedOHO` of the variant "layerwise", whose update none of our rules makes; for parameters of several
            types, or a model that draws random numbers in a way that cannot be repeated (rrelu); for a model whose second
            derivative is wrong, so that it can have no twin.
    """
    if not isinstance(model, nn.Module) or not isinstance(optimizer, OHO | PublishedOHO):
        given = f"{type(model).__name__} and {type(optimizer).__name__}"
        raise TypeError(f"audit: a model and its oho.OHO are expected, given {given}")
    steps = list(steps)
    if not all(isinstance(step, tuple) and len(step) in (2, 3) and all(map(callable, step)) for step in steps):
        raise TypeError(
            "audit: each step must be a pair (train_closure, valid_closure), or three with its curvature_closure"
        )
    device = optimizer._flat.tensors[0].device
    pairs = [(Replayed(train, model, device), Replayed(valid, model, device)) for train, valid, *_ in steps]
    _check(model, optimizer, len(pairs))
    product = _compared(pairs[0][0], optimizer)
    start, values = _start(optimizer, len(pairs)), []
    for (train, valid), (_, _, *part) in zip(pairs, steps, strict=True):
        values.append(_values(optimizer))
        if part and isinstance(optimizer, OHO):
            optimizer.step(train, valid, curvature_closure=part[0])
        else:
            optimizer.step(train, valid)
    for closure in itertools.chain.from_iterable(pairs):
        closure.replaying = True
    with in_float64(model) as dtype, wide(dtype):
        exact = Twin(start, values, pairs).hypergradient()
    found = {name: value.double() for name, value in optimizer.hypergradient.items()}
    exact = {name: exact[name].view_as(value) for name, value in found.items()}
    return Audit(len(pairs), found, exact, optimizer.set_map.labels, product, frozenset(start.arguments))


def _start(optimizer: OHO | PublishedOHO, count: int) -> Start:
    parameters, theta = optimizer._flat, optimizer._flat.gather()
    if isinstance(optimizer, PublishedOHO):
        tangents = torch.stack([parameters.flatten(tangent) for tangent in optimizer._tangents.values()])
        rule, influence = SGD(lr=0.0), {"": tangents.double()}
        collapsed = Directions(dict.fromkeys(rule.tune, ()), exact=False)
        return Start(
            parameters=parameters, set_map=optimizer.set_map, rule=rule, theta=theta.double(), slots={},
            influence=influence, directions=collapsed, noise=[None] * count, tuned=rule.tune,
        )  # fmt: skip
    state = optimizer.state_dict()
    _catch_up(optimizer, state)
    recursion, every = optimizer._recursion, optimizer.reset_every
    noise = [recursion.noise(theta) for _ in range(count)]
    for generator, saved in zip(recursion.generators, state["generators"], strict=True):
        generator.set_state(saved)
    return Start(
        parameters=parameters,
        set_map=optimizer.set_map,
        rule=optimizer.rule,
        theta=theta.double(),
        slots={name: slot.double() for name, slot in state["slots"].items()},
        influence={"": state["influence"]["theta"].double()}
        | {n: t.double() for n, t in state["slot_influence"].items()}
        | {AVERAGED[n]: t.double() for n, t in state.get("averaged_influence", {}).items()},
        directions=recursion.directions,
        noise=[None if xi is None else xi.double() for xi in noise],
        discount=optimizer.discount,
        resets=frozenset(step for step in range(count) if every and (optimizer.steps + step + 1) % every == 0),
        arguments={name: argument.shape for name, argument in optimizer._loss.arguments.given.items()},
        tuned=recursion.tuning.tuned,
        one_step=optimizer._loss.one_step,
        averaged={AVERAGED[name]: tensor.double() for name, tensor in state.get("averaged", {}).items()},
        average=None if recursion.averaged is None else recursion.averaged.kind,
        present_share=recursion.present_share,
        steps=optimizer.steps,
    )


def _catch_up(optimizer: OHO, state: dict[str, Any]) -> None:
    """Moves the average's influence, in a copy of the state, over the plain steps that it has yet to follow."""
    averaged, steps, plain = optimizer._recursion.averaged, optimizer.steps, optimizer.steps_behind
    if averaged is not None and plain:
        theta, beside = state["influence"]["theta"], state["averaged_influence"]
        averaged.move_over(averaged.missed(steps + 1, plain=plain), theta, beside)


def _compared(closure: Closure, optimizer: OHO | PublishedOHO) -> Comparison:
    """Compares one product of the kind that the twin makes, by a second backward pass; raises ValueError if it is wrong."""
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
    """Returns copies of present values in float64: (M, S) or (M, V) by name."""
    if isinstance(optimizer, PublishedOHO):
        return {name: value.double().unsqueeze(0) for name, value in optimizer.hyper.items()}
    return {name: value.to(torch.float64, copy=True) for name, value in optimizer._recursion.tuning.values.items()}


def _check_last(optimizer: OHO, count: int) -> None:
    """Raises ValueError unless the last step makes a meta-step; the message says where to end instead."""
    kinds, last = optimizer._kinds, optimizer.steps + count
    if kinds.is_meta(last):
        return
    given, after = f"audit: the last of {count} steps, {last}, has no meta-step", kinds.next_meta(last)
    if after is not None:
        raise ValueError(f"{given}; give {after - last} more")
    given += f", and none of the next {HORIZON} has one (tuned_steps={optimizer.tuned_steps})"
    if before := kinds.last_meta(last):
        raise ValueError(f"{given}; allowed are steps that end with a meta-step, the last of which is step {before}")
    raise ValueError(f"{given}, nor any step before: change tuned_steps, update_every or first_updates")


def _check(model: nn.Module, optimizer: OHO | PublishedOHO, count: int) -> None:
    if count == 0:
        raise ValueError("audit: no steps were given; give the (train_closure, valid_closure) of each step to audit")
    if isinstance(optimizer, OHO) and not optimizer._recursion.tuning.tuned:
        raise ValueError("audit: the optimizer tunes nothing, so that there is no hypergradient")
    if isinstance(optimizer, PublishedOHO) and optimizer.variant == "layerwise":
        raise ValueError("audit: the published layer-wise update decays no biases, and none of our rules makes it")
    if isinstance(optimizer, OHO):
        _check_last(optimizer, count)
    if len(kinds := {p.dtype for p in model.parameters() if p.is_floating_point()}) > 1:
        names = ", ".join(sorted(map(str, kinds)))
        raise ValueError(f"audit: the model's parameters have several types ({names}); convert the model to one")
    own = {id(parameter) for parameter in model.parameters()}
    if any(id(tensor) not in own for tensor in optimizer._flat.tensors):
        raise ValueError("audit: the optimizer has parameters that are not the model's; give the model it was made for")
