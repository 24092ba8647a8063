"""The recipes of the tape: how each of PyTorch's functions is recorded.

A recipe is given the output and the arguments of a function.  It returns an operation for each output, and the arguments
that may depend on parameters, or None for a variant of the function that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from oho import members
from oho.engines.convolution import Convolution
from oho.engines.normalisation import BatchNorm, LayerNorm
from oho.engines.pearlmutter import Elementwise, Linear, LogSoftmax, MemberLinear, Operation, Reshape
from oho.engines.structure import Curved, Embedding, Part, Product, Rearrangement, Rows, Softmax, Sum
from oho.engines.tape_losses import CrossEntropy, Loss, NegativeLogLikelihood, SquaredError

aten = torch.ops.aten
Inputs = tuple[Tensor, ...]
Recipe = Callable[..., tuple[Operation | Loss | tuple[Operation, ...], Inputs] | None]


def _linear(output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None):
    if input.ndim < 2 or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    operation: Operation = Linear(input.detach().flatten(0, -2), weight.detach())
    return _led(operation, input), (input, weight) if bias is None else (input, weight, bias)


def _led(operation: Operation, input: Tensor) -> Operation:
    """Returns an operation on rows as one on an input that may have more leading axes."""
    return operation if input.ndim == 2 else Rows(operation, input.shape[:-1])


def _convolution(
    output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
):  # fmt: skip
    axes = weight.ndim - 2
    if groups != 1 or isinstance(padding, str) or input.ndim != weight.ndim:
        return None
    stride, padding, dilation = ([v] * axes if isinstance(v, int) else list(v) for v in (stride, padding, dilation))
    operation = Convolution(input.detach(), weight.detach(), (stride, padding, dilation), output.shape)
    return operation, (input, weight) if bias is None else (input, weight, bias)


def _batch_norm(
    output: Tensor, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
):  # fmt: skip
    mean, scale = _saved_statistics(output)  # (C,) of the batch
    if not training or weight is None or bias is None or mean is None or scale is None:
        return None
    return BatchNorm(input.detach(), weight.detach(), mean, scale, eps), (input, weight, bias)


def _layer_norm(
    output: Tensor, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
):  # fmt: skip
    mean, scale = _saved_statistics(output)  # (..., 1) of each row
    if len(normalized_shape) != 1 or weight is None or bias is None or mean is None or scale is None or input.ndim < 2:
        return None
    x, mean, scale = (value.flatten(0, -2) for value in (input.detach(), mean, scale))
    return _led(LayerNorm(x, weight.detach(), mean, scale), input), (input, weight, bias)


def _saved_statistics(output: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Returns the mean and 1 / √(variance + ε), which PyTorch keeps for the backward pass of a norm."""
    return getattr(output.grad_fn, "_saved_result1", None), getattr(output.grad_fn, "_saved_result2", None)


def _tanh(output: Tensor, input: Tensor):
    return Elementwise(output, aten.tanh_backward.default, lambda y: y, -2.0), (input,)


def _sigmoid(output: Tensor, input: Tensor):
    return Elementwise(output, aten.sigmoid_backward.default, lambda y: 1 - 2 * y), (input,)


def _relu(output: Tensor, input: Tensor, inplace: bool = False):
    sign = cache(torch.sign)  # the slope, which all three sweeps multiply with
    return Elementwise(output, lambda z, y: z * sign(y)), (input,)


def _gelu(output: Tensor, input: Tensor, approximate: str = "none"):
    if approximate != "none":
        return None
    return Curved(input.detach(), _gelu_curves), (input,)


def _gelu_curves(x: Tensor) -> tuple[Tensor, Tensor]:
    """φ' = Φ(x) + x ϕ(x), φ'' = (2 − x²) ϕ(x)."""
    slope, square = aten.gelu_backward(torch.ones_like(x), x), x * x
    density = (square * -0.5).exp_()
    return slope, square.neg_().add_(2).mul_(density).div_(math.sqrt(2 * math.pi))


def _softmax(output: Tensor, input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None):
    return (Softmax(output.detach()), (input,)) if dim in (-1, input.ndim - 1) and dtype is None else None


def _sum(output: Tensor, input: Any, other: Any):
    terms = tuple(term for term in (input, other) if isinstance(term, Tensor))
    return Sum([term.shape for term in terms], output.shape), terms


def _scaled(output: Tensor, input: Tensor, other: Any, *, divides: bool = False):
    if isinstance(other, Tensor):
        if other.requires_grad or output.shape != input.shape:
            return None
        other = other.detach().to(output.dtype, copy=True)
    factor = 1 / other if divides else other
    return Rearrangement(lambda x: x * factor, lambda y: y * factor), (input,)


def _dropout(output: Tensor, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False):
    noise = getattr(output.grad_fn, "_saved_other", None)
    return None if inplace or noise is None else (Elementwise(noise, torch.mul), (input,))


def _product(output: Tensor, input: Tensor, other: Tensor):
    if input.ndim < 3 or input.shape[:-2] != other.shape[:-2]:
        return None
    return Product(input.detach(), other.detach()), (input, other)


def _transpose(output: Tensor, input: Tensor, dim0: int, dim1: int):
    axes = [dim - input.ndim if dim >= 0 else dim for dim in (dim0, dim1)]
    return Rearrangement(lambda x: x.transpose(*axes), lambda y: y.transpose(*axes)), (input,)


def _contiguous(output: Tensor, input: Tensor, **options: Any):
    return Rearrangement(Tensor.contiguous, lambda y: y), (input,)


def _pieces(output: tuple[Tensor, ...], input: Tensor, size: Any, dim: int = 0):
    """Notes chunk and split, each of whose outputs is a piece of the input."""
    axis, start, operations = (dim - input.ndim if dim >= 0 else dim), 0, []
    for piece in output:
        operations.append(_narrow(axis, start, piece.shape[axis], input.shape[axis]))
        start += piece.shape[axis]
    return tuple(operations), (input,)


def _narrow(axis: int, start: int, length: int, whole: int) -> Operation:
    return Rearrangement(lambda x: x.narrow(axis, start, length), lambda y: Part(y, axis, start, whole))


def _average(output: Tensor, input: Tensor, output_size: Any):
    """Notes adaptive average pooling to one value for each channel."""
    if output_size not in (1, (1, 1), [1, 1]):
        return None
    *_, high, wide = input.shape
    return Rearrangement(
        lambda x: x.mean((-2, -1), keepdim=True), lambda y: (y / (high * wide)).expand(*y.shape[:-2], high, wide)
    ), (input,)


def _largest(
    output: Tensor, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
):  # fmt: skip
    places = getattr(output.grad_fn, "_saved_result1", None)
    if places is None or return_indices:
        return None
    before, after, places = input.shape[-2:], output.shape[-2:], places.flatten(-2)

    def apply(x: Tensor) -> Tensor:
        return x.flatten(-2).gather(-1, places.expand(*x.shape[:-2], -1)).unflatten(-1, after)

    def transpose(y: Tensor) -> Tensor:
        zeros = y.new_zeros(*y.shape[:-2], before.numel())
        return zeros.scatter_add_(-1, places.expand(*y.shape[:-2], -1), y.flatten(-2)).unflatten(-1, before)

    return Rearrangement(apply, transpose), (input,)


def _embedding(
    output: Tensor, input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
):  # fmt: skip
    if padding_idx is not None or max_norm is not None or scale_grad_by_freq:
        return None
    return Embedding(input.clone(), len(weight)), (weight,)


def _log_softmax(output: Tensor, input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None):
    return (LogSoftmax(output), (input,)) if dim in (-1, input.ndim - 1) and dtype is None else None


def _reshape(output: Tensor, input: Tensor, *shape: Any, **options: Any):
    return Reshape(input.shape, output.shape), (input,)


def _class_loss(
    output: Tensor, input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
    *, of_logits: bool,
):  # fmt: skip
    plain = weight is None and size_average is None and reduce is None and label_smoothing == 0
    if not plain or reduction not in ("mean", "sum") or input.ndim != 2 or target.ndim != 1 or target.dtype != torch.int64:
        return None
    log_p, count = _log_probabilities(output, input.detach() if of_logits else None)
    if count is None:
        count = (target != ignore_index).sum().to(input.dtype)
    weight = count.reciprocal() if reduction == "mean" else torch.ones_like(count)
    of_log_p = _adjoint_of_chosen(input.detach() if log_p is None else log_p, target, weight, ignore_index)
    if log_p is None:
        return NegativeLogLikelihood(of_log_p), (input,)
    return CrossEntropy(log_p, of_log_p), (input,)


def _log_probabilities(output: Tensor, logits: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Returns the log-probabilities of logits (..., C), and the number of examples that count; None for what is unknown.

    PyTorch keeps both for the backward pass of a cross-entropy.
    """
    node = output.grad_fn
    for _ in range(2):  # the mean and the view of a population's losses
        if node is not None and not hasattr(node, "_saved_total_weight"):
            node = node.next_functions[0][0]
    count, log_p = getattr(node, "_saved_total_weight", None), getattr(node, "_saved_self", None)
    if logits is None:
        return None, count
    return (logits.log_softmax(-1) if log_p is None else log_p.detach().view(logits.shape)), count


def _adjoint_of_chosen(values: Tensor, target: Tensor, weight: Tensor, ignore_index: int = -100) -> Tensor:
    """Returns −w at the target and 0 elsewhere, (B, C), for values (B, C), targets (B,) and one weight ()."""
    summed = 2  # PyTorch's number of the reduction
    return aten.nll_loss_backward(weight, values, target, None, summed, ignore_index, weight)


def _squared_error(
    output: Tensor, input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
):  # fmt: skip
    plain = weight is None and size_average is None and reduce is None and not target.requires_grad
    if not plain or reduction not in ("mean", "sum") or input.shape != target.shape or input.numel() == 0:
        return None
    return SquaredError(input.detach() - target, 1 / input.numel() if reduction == "mean" else 1.0), (input,)


def _member_linear(output: Tensor, input: Tensor, weight: Tensor, bias: Tensor):
    return MemberLinear(input, weight), (input, weight, bias)


def _member_class_loss(output: Tensor, input: Tensor, target: Tensor):
    log_p, _ = _log_probabilities(output, input.detach())
    assert log_p is not None
    weight = input.new_full((), 1 / input.shape[1])
    of_log_p = _adjoint_of_chosen(log_p.flatten(0, 1), target.flatten(), weight).view_as(log_p)
    return CrossEntropy(log_p, of_log_p), (input,)


def _member_squared_error(output: Tensor, input: Tensor, target: Tensor):
    if input.shape != target.shape or target.requires_grad or input.numel() == 0:
        return None
    return SquaredError(input.detach() - target, len(input) / input.numel()), (input,)


LOSSES = (CrossEntropy, NegativeLogLikelihood, SquaredError)
LEAVE_THEIR_OUTPUT = (Linear, Rows, Convolution, BatchNorm, Sum)
"""Operations that do not need their output again, so that the next one may overwrite it."""
IN_PLACE = {functional.relu, torch.relu_, Tensor.relu_, Tensor.add_, Tensor.__iadd__}
"""Functions whose recipes do not need the value that they overwrite."""
RECIPES: dict[Any, Recipe] = {
    functional.linear: _linear,
    **dict.fromkeys((torch.tanh, Tensor.tanh, functional.tanh), _tanh),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, functional.sigmoid), _sigmoid),
    **dict.fromkeys((torch.relu, Tensor.relu, functional.relu, torch.relu_, Tensor.relu_), _relu),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), _log_softmax),
    **dict.fromkeys((torch.flatten, Tensor.flatten, Tensor.view, torch.reshape, Tensor.reshape), _reshape),
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    functional.batch_norm: _batch_norm,
    functional.layer_norm: _layer_norm,
    functional.gelu: _gelu,
    functional.embedding: _embedding,
    functional.adaptive_avg_pool2d: _average,
    functional.max_pool2d: _largest,
    functional.dropout: _dropout,
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), _softmax),
    **dict.fromkeys((Tensor.add, torch.add, Tensor.__radd__, Tensor.add_, Tensor.__iadd__), _sum),
    **dict.fromkeys((Tensor.mul, torch.mul, Tensor.__rmul__), _scaled),
    **dict.fromkeys((Tensor.div, Tensor.__truediv__, torch.div), partial(_scaled, divides=True)),
    **dict.fromkeys((Tensor.matmul, torch.matmul, torch.bmm), _product),
    **dict.fromkeys((Tensor.transpose, torch.transpose), _transpose),
    **dict.fromkeys((Tensor.chunk, torch.chunk, Tensor.split, torch.split), _pieces),
    Tensor.contiguous: _contiguous,
    functional.cross_entropy: partial(_class_loss, of_logits=True),
    functional.nll_loss: partial(_class_loss, of_logits=False),
    functional.mse_loss: _squared_error,
    members.linear: _member_linear,
    members.cross_entropy: _member_class_loss,
    members.squared_error: _member_squared_error,
}
