"""Which operation of a closure has a second derivative that is not the derivative of its first.

Each function that the closure calls on values that depend on parameters is tried alone, on the values that it was given:
its own product is compared with its own central differences.  Two things escape this: autograd functions written in Python,
and values that were detached and used again.  They are named where no function is to blame.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from oho.engines.callers import caller
from oho.engines.repetition import Repeatable
from oho.engines.twice import TwiceDifferentiable
from oho.engines.watch import graph_of

WIDTH = 1e-6
WRONG = 1e-3
"""The relative error of a function's product from which the function is to blame; rounding leaves 1e-8."""


def blame(closure: Repeatable) -> tuple[str, ...]:
    """Returns the operations to blame, each with the line that calls it, or the suspects if none is certain."""
    with _Calls() as calls:
        loss = closure()
    wrong = [place for place, (function, args, kwargs) in calls.met.items() if _is_wrong(function, args, kwargs)]
    return tuple(dict.fromkeys(wrong)) or (*_python_functions(loss), *calls.detached)


class _Calls(TwiceDifferentiable):
    """Records the functions that are called on values that depend on parameters, by name and place."""

    def __init__(self) -> None:
        super().__init__()
        self.met: dict[str, tuple[Any, tuple, dict]] = {}
        self.detached: dict[str, None] = {}
        self._stopped: dict[int, tuple[Tensor, str]] = {}

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        moves = any(tensor.requires_grad for tensor in inputs)
        name = getattr(function, "__name__", str(function))
        place = f"{name} ({_line()})"
        if moves and not name.endswith("_"):
            self.met.setdefault(place, (function, args, kwargs or {}))
        result = super().__torch_function__(function, types, args, kwargs)
        plain = [id(tensor) for tensor in inputs if not tensor.requires_grad]
        stopped = [self._stopped[key][1] for key in plain if key in self._stopped]
        for tensor in _floats(result):
            if tensor.requires_grad:
                self.detached.update(dict.fromkeys(stopped))
            elif moves or stopped:
                self._stopped[id(tensor)] = (tensor, stopped[0] if stopped else place)
        return result


def _is_wrong(function: Any, args: tuple, kwargs: dict) -> bool:
    """Returns whether one function, tried alone, is to blame; one that cannot be tried is not."""
    leaves, shape = tree_flatten((args, kwargs))
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    start = {i: leaves[i].detach().double() for i in moving}
    generator = torch.Generator().manual_seed(0)
    directions = {
        i: torch.randn(start[i].shape, generator=generator, dtype=torch.float64, device="cpu").to(start[i]) for i in moving
    }

    def gradient(sign: int, *, graph: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        inputs = {i: (start[i] + sign * WIDTH * directions[i]).requires_grad_() for i in moving}
        given = tree_unflatten([inputs.get(i, leaf) for i, leaf in enumerate(leaves)], shape)
        with TwiceDifferentiable(), torch.random.fork_rng():
            torch.manual_seed(0)
            outputs = [out for out in _floats(function(*given[0], **given[1])) if out.requires_grad]
        weights = [torch.linspace(1, 2, out.numel()).to(out).view_as(out) for out in outputs]
        found = torch.autograd.grad(
            outputs, list(inputs.values()), weights, create_graph=graph, allow_unused=True, materialize_grads=True
        )
        return list(found), list(inputs.values())

    try:
        gradients, inputs = gradient(0, graph=True)
        sides = gradient(1)[0], gradient(-1)[0]
        total = sum(((g * z).sum() for g, z in zip(gradients, directions.values(), strict=True)), torch.zeros(()))
        products = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    differences = [(up - down) / (2 * WIDTH) for up, down in zip(*sides, strict=True)]
    size = sum(float(d.norm()) for d in differences) + sum(float(g.detach().norm()) for g in gradients)
    error = sum(float((p - d).detach().norm()) for p, d in zip(products, differences, strict=True))
    return error > WRONG * size


def _python_functions(loss: Tensor) -> Iterator[str]:
    for node in graph_of(loss):
        if isinstance(node, BackwardCFunction):
            kind = node._forward_cls  # type: ignore[attr-defined]
            try:
                line = f"{Path(inspect.getsourcefile(kind) or '').name}:{inspect.getsourcelines(kind)[1]}"
            except (OSError, TypeError):
                line = kind.__module__
            yield f"{kind.__name__} ({line})"


def _floats(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _line() -> str:
    """Returns file and line of the nearest caller that is neither PyTorch's nor ours."""
    frame = caller()[0]
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
