"""Dual numbers for update rules: one value with K tangents beside it.

    symbol  name     shape                    meaning
    K       rows     ()                       directions differentiated at once
    x       value    (M, C) or (M, 1)         shared by all rows
    ẋ       tangent  (K, M, C)                dx/dh, one row a direction
                     {k: (M, C) or a number}  the same with all other rows zero
                     None                     zero, at no cost

Only one row of a hyperparameter's tangent is not zero, so that most products with it touch one row of K.  PyTorch's forward
mode, in contrast, carries one direction at a time, computes the value anew for each, and allocates every product.
This module knows the arithmetic of the rules in `oho.rules`; `oho.dual_step` falls back on PyTorch's dual numbers for a
rule that does anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor
Rows = dict[int, Number]
Tangent = Tensor | Rows | None
Term = tuple[Number, Tangent, float]
"""Coefficient c, tangent ẋ and scale a, standing for a c ẋ."""


class UnknownOperationError(TypeError):
    """Raised for an operation for which this module has no derivative."""


class Dual:
    """A value and its tangents.  PyTorch's functions and the operators act on both."""

    __slots__ = ("tangent", "value")

    def __init__(self, value: Tensor, tangent: Tangent = None):
        self.value, self.tangent = value, tangent

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        """PyTorch calls this for a function with a dual number among its arguments."""
        name = function.__name__.strip("_")
        if name not in DERIVATIVES:
            raise UnknownOperationError(name)
        return DERIVATIVES[name](*args, **(kwargs or {}))

    def __add__(self, other: Any) -> Dual:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Dual:
        return subtract(self, other)

    def __rsub__(self, other: Any) -> Dual:
        return subtract(other, self)

    def __mul__(self, other: Any) -> Dual:
        return multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Dual:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Dual:
        return divide(other, self)

    def __pow__(self, other: Any) -> Dual:
        return power(self, other)

    def __neg__(self) -> Dual:
        return multiply(self, -1.0)

    def __gt__(self, other: Any) -> Tensor:
        return value_of(self) > value_of(other)

    def __ge__(self, other: Any) -> Tensor:
        return value_of(self) >= value_of(other)

    def __lt__(self, other: Any) -> Tensor:
        return value_of(self) < value_of(other)

    def __le__(self, other: Any) -> Tensor:
        return value_of(self) <= value_of(other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return value_of(self) == value_of(other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return value_of(self) != value_of(other)

    def __bool__(self) -> bool:
        raise UnknownOperationError("bool")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Returns methods such as `x.sqrt`."""
        if name not in DERIVATIVES:
            raise UnknownOperationError(name)
        return lambda *args, **kwargs: DERIVATIVES[name](self, *args, **kwargs)


def value_of(x: Any) -> Any:
    """Returns the value of a dual number, and anything else as it is."""
    return x.value if isinstance(x, Dual) else x


def tangent_of(x: Any) -> Tangent:
    """Returns the tangent of a dual number, and None for anything else."""
    return x.tangent if isinstance(x, Dual) else None


def add(x: Any, y: Any, *, alpha: float = 1.0) -> Dual:
    """x + a y."""
    value = value_of(x) + value_of(y) if alpha == 1 else torch.add(value_of(x), value_of(y), alpha=alpha)
    return Dual(value, _sum((1.0, tangent_of(x), 1.0), (1.0, tangent_of(y), alpha)))


def subtract(x: Any, y: Any) -> Dual:
    """x − y."""
    return Dual(value_of(x) - value_of(y), _sum((1.0, tangent_of(x), 1.0), (1.0, tangent_of(y), -1.0)))


def multiply(x: Any, y: Any) -> Dual:
    """x y."""
    a, b = value_of(x), value_of(y)
    return Dual(a * b, _sum((b, tangent_of(x), 1.0), (a, tangent_of(y), 1.0)))


def divide(x: Any, y: Any) -> Dual:
    """x / y."""
    a, b = value_of(x), value_of(y)
    ratio = a / b
    terms = [(1 / b, tangent_of(x), 1.0)]
    if tangent_of(y) is not None:
        terms.append((ratio / b, tangent_of(y), -1.0))
    return Dual(ratio, _sum(*terms))


def power(x: Any, exponent: Any) -> Dual:
    """x^n; n must not have a tangent."""
    if not isinstance(x, Dual) or tangent_of(exponent) is not None:
        raise UnknownOperationError("pow with a tangent in the exponent")
    n = value_of(exponent)
    return Dual(x.value**n, None if x.tangent is None else _sum((n * x.value ** (n - 1), x.tangent, 1.0)))


def square_root(x: Dual) -> Dual:
    """√x."""
    root = x.value.sqrt()
    return Dual(root, None if x.tangent is None else _sum((0.5 / root, x.tangent, 1.0)))


def choose(condition: Tensor, x: Any, y: Any) -> Dual:
    """Returns x where the condition holds, else y."""
    value = torch.where(condition, value_of(x), value_of(y))
    a, b = tangent_of(x), tangent_of(y)
    if a is None and b is None:
        return Dual(value)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        like = a if isinstance(a, Tensor) else b
        return Dual(value, torch.where(condition, full(a, like), full(b, like)))  # type: ignore[arg-type]
    a, b = a or {}, b or {}

    def entry(rows: Rows, row: int) -> Tensor:
        number = rows.get(row, 0.0)
        return number if isinstance(number, Tensor) else value.new_full((), number)

    return Dual(value, {row: torch.where(condition, entry(a, row), entry(b, row)) for row in {*a, *b}})


def add_product(x: Any, y: Any, z: Any, *, value: float = 1.0) -> Dual:
    """x + a y z."""
    a, b, c = value_of(x), value_of(y), value_of(z)
    tangent = _sum((1.0, tangent_of(x), 1.0), (c, tangent_of(y), value), (b, tangent_of(z), value))
    return Dual(torch.addcmul(a, b, c, value=value), tangent)


DERIVATIVES: dict[str, Callable[..., Any]] = {
    "add": add,
    "radd": add,
    "sub": subtract,
    "rsub": lambda x, y: subtract(y, x),
    "mul": multiply,
    "rmul": multiply,
    "div": divide,
    "truediv": divide,
    "true_divide": divide,
    "rdiv": lambda x, y: divide(y, x),
    "rtruediv": lambda x, y: divide(y, x),
    "pow": power,
    "sqrt": square_root,
    "where": choose,
    "addcmul": add_product,
}


def full(tangent: Tangent, like: Tensor) -> Tensor:
    """Returns a tangent as one tensor of `like`'s shape (K, M, C)."""
    if isinstance(tangent, Tensor):
        return tangent.expand_as(like)
    result = torch.zeros_like(like)
    for row, entry in (tangent or {}).items():
        result[row] += entry
    return result


def _sum(*terms: Term) -> Tangent:
    """Σ a c ẋ over the terms that are not zero: whole tangents first, then single rows added to them."""
    total: Tensor | None = None
    ours = False
    for coefficient, tangent, scale in terms:
        if isinstance(tangent, Tensor):
            total, ours = _accumulate(total, ours, coefficient, tangent, scale)
    rows = [term for term in terms if isinstance(term[1], dict)]
    if total is None:
        return _sum_rows(rows) if rows else None
    if rows and not ours:
        total = total.clone()
    for coefficient, tangent, scale in rows:
        for row, entry in tangent.items():  # type: ignore[union-attr]
            _add_product(total[row], coefficient, entry, scale)
    return total


def _accumulate(
    total: Tensor | None, ours: bool, coefficient: Number, tangent: Tensor, scale: float
) -> tuple[Tensor, bool]:
    """total + a c ẋ: a multiply-add, in place once there is a tensor of our own."""
    if not isinstance(coefficient, Tensor):
        factor = coefficient * scale
        if total is None:
            return (tangent, False) if factor == 1 else (tangent * factor, True)
        return (total.add_(tangent, alpha=factor) if ours else torch.add(total, tangent, alpha=factor)), True
    if total is None:
        return (tangent * coefficient if scale == 1 else (tangent * coefficient).mul_(scale)), True
    add = total.addcmul_ if ours else partial(torch.addcmul, total)
    return add(coefficient, tangent, value=scale), True


def _sum_rows(terms: list[Term]) -> Rows:
    """Σ a c ẋ where every term has rows by number."""
    total: Rows = {}
    for coefficient, tangent, scale in terms:
        for row, entry in tangent.items():  # type: ignore[union-attr]
            product = coefficient * entry * scale if scale != 1 else coefficient * entry
            total[row] = total[row] + product if row in total else product
    return total


def _add_product(total: Tensor, coefficient: Number, entry: Number, scale: float) -> None:
    """total (M, C) += a c ẋ, in place."""
    if isinstance(coefficient, Tensor) and isinstance(entry, Tensor):
        total.addcmul_(coefficient, entry, value=scale)
    elif isinstance(coefficient, Tensor):
        total.add_(coefficient, alpha=scale * entry)  # type: ignore[arg-type]
    else:
        total.add_(entry, alpha=scale * coefficient)
