"""Calls functions whose usual kernels cannot be differentiated twice in a form that can.

    function                            usual kernel                      instead
    scaled_dot_product_attention        flash, memory-efficient           the same sums as matrix products
    multi_head_attention_forward        the same, inside                  the same
    lstm, gru, rnn_tanh, rnn_relu       cuDNN                             PyTorch's own cells
    _weight_norm                        fused; wrong second derivative    v (g / ‖v‖)
    embedding(sparse=True)              sparse gradient                   dense gradient
    hardsigmoid                         none for its second derivative    clamp(x + 3, 0, 6) / 6

The values are the same to rounding.  Attention then needs memory for its whole matrix of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class TwiceDifferentiable(TorchFunctionMode):
    """Calls all functions inside the block in a form that can be differentiated twice."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its functions."""
        stand_in = STAND_INS.get(function)
        return function(*args, **(kwargs or {})) if stand_in is None else stand_in(function, *args, **(kwargs or {}))


@contextmanager
def recomputing() -> Iterator[None]:
    """Makes activation checkpointing recompute attention in a backward pass with the kernel of the forward pass.

    `TwiceDifferentiable` does not reach there: `torch.autograd.grad` runs with such modes switched off.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _by_products(function: Any, *args: Any, **kwargs: Any) -> Any:
    with sdpa_kernel(SDPBackend.MATH):
        return function(*args, **kwargs)


def _without_cudnn(function: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.backends.cudnn.flags(enabled=False):
        return function(*args, **kwargs)


def _unfused(function: Any, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _clamped(function: Any, input: Tensor, inplace: bool = False) -> Tensor:
    return function(input, inplace) if inplace else (input + 3).clamp(0, 6) / 6


def _dense(function: Any, *args: Any, **kwargs: Any) -> Tensor:
    place = 6 if function is functional.embedding else 4
    if len(args) > place:
        args = (*args[:place], False, *args[place + 1 :])
    else:
        kwargs = {**kwargs, "sparse": False}
    return function(*args, **kwargs)


STAND_INS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((functional.scaled_dot_product_attention, functional.multi_head_attention_forward), _by_products),
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _without_cudnn),
    torch._weight_norm: _unfused,
    functional.hardsigmoid: _clamped,
    **dict.fromkeys((functional.embedding, torch.embedding), _dense),
}
