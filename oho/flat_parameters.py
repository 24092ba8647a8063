"""Parameters as one flat tensor: gathered from the model before each step and written back after it.

    symbol  name        shape            meaning
    M       members     ()               independent trainings side by side; 1 without a population
    N       size        ()               tuned elements of one member
    θ       parameters  (M, N)           all tuned parameters of each member, in the order given
    p       tensor      (M, *shape)      one of the model's own tensors; (*shape) without a population

Flat tensors are float32 where the model's tensors are narrower (bfloat16, float16), and of the model's type elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.parameter import is_lazy

Given = Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]]
NARROW = (torch.bfloat16, torch.float16)
SHARDED = ("DTensor", "FlatParameter", "ShardedTensor")


@dataclass(frozen=True)
class FlatParameters:
    """The model's own tensors, and where they lie in a flat one.

    `tensors[i]`, named `names[i]`, takes `sizes[i]` elements of the last axis; `members` is None without a population.
    Where no names were given (`named` is False), a tensor's name is its place.  `frozen` has the tensors left out, by name.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    members: int | None
    named: bool = True
    frozen: tuple[tuple[str, Tensor], ...] = ()

    @property
    def rows(self) -> int:
        """M."""
        return self.members or 1

    @property
    def size(self) -> int:
        """N."""
        return sum(self.sizes)

    @property
    def is_narrow(self) -> bool:
        """Whether the model's tensors have a type too narrow to keep small changes."""
        return self.tensors[0].dtype in NARROW

    @property
    def dtype(self) -> torch.dtype:
        """The type of flat tensors."""
        return torch.float32 if self.is_narrow else self.tensors[0].dtype

    def gather(self) -> Tensor:
        """Returns the parameters (M, N) as they are now, detached."""
        with torch.no_grad():
            return self.flatten(self.tensors)

    def flatten(self, values: Sequence[Tensor | None], *, out: Tensor | None = None) -> Tensor:
        """Joins one tensor (..., *p.shape) for each parameter into a flat tensor (..., M, N); None stands for zeros.

        `out`, if given, is filled and returned.
        """
        if out is not None and all(value is None for value in values):
            return out.zero_()
        if self.members is None and out is None and self._are_like_parameters(values):
            return _flatten_dense_tensors(values).unsqueeze(0)  # the same in one call; of a single tensor, a view
        pairs = list(zip(values, self.tensors, strict=True))
        lead = next((value.shape[: value.ndim - tensor.ndim] for value, tensor in pairs if value is not None), ())
        shape, dtype = (*lead, self.rows), self.dtype
        pieces = [
            tensor.new_zeros((*shape, size), dtype=dtype) if value is None else value.reshape(*shape, size)
            for (value, tensor), size in zip(pairs, self.sizes, strict=True)
        ]
        if self.is_narrow:
            pieces = [piece.to(dtype) for piece in pieces]
        return torch.cat(pieces, dim=-1) if out is None else torch.cat(pieces, dim=-1, out=out)

    def _are_like_parameters(self, values: Sequence[Tensor | None]) -> bool:
        """Returns whether there are several tensors, each of its parameter's shape, and flat tensors have their type."""
        if self.is_narrow or len(values) == 1:
            return False
        pairs = zip(values, self.tensors, strict=True)
        return values is self.tensors or all(value is not None and value.shape == tensor.shape for value, tensor in pairs)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Returns a view (..., *p.shape) of a flat tensor (..., M, N) for each parameter."""
        pieces = torch.split_with_sizes(flat, self.sizes, dim=-1)
        lead = flat.shape[:-2]
        return [piece.view((*lead, *tensor.shape)) for piece, tensor in zip(pieces, self.tensors, strict=True)]

    def directions(self, flat: Tensor) -> list[Tensor]:
        """Splits a flat tensor like `split`, and returns the pieces in the type of the model's tensors."""
        pieces = self.split(flat)
        return [piece.to(self.tensors[0].dtype) for piece in pieces] if self.is_narrow else pieces

    def write(self, flat: Tensor) -> None:
        """Copies θ (M, N) into the model's tensors, in place.

        Under `torch.autocast`, PyTorch keeps cast parameters until the outermost block ends; they are dropped here.
        """
        with torch.no_grad():
            pieces = self.split(flat) if self.members else _unflatten_dense_tensors(flat[0], self.tensors)
            torch._foreach_copy_(self.tensors, pieces)
        torch.clear_autocast_cache()

    def span(self, index: int) -> slice:
        """Returns where tensor `index` lies on the last axis."""
        start = sum(self.sizes[:index])
        return slice(start, start + self.sizes[index])

    def per_member(self, value: Tensor) -> Tensor:
        """Returns a tensor (M, ...) as users see it: without a population, it has no axis of members."""
        return value if self.members is not None else value[0]


def flat_parameters(parameters: Given, members: int | None = None) -> FlatParameters:
    """Checks the given parameters and lays them out; frozen ones (requires_grad False) are left out.

    Raises:
        TypeError: for something that is not a tensor or a (name, tensor) pair.
        ValueError: for no parameters, repeated ones, several dtypes or devices, or a wrong member axis.
    """
    given = list(parameters)
    pairs = [item if isinstance(item, tuple) else (str(i), item) for i, item in enumerate(given)]
    for name, tensor in pairs:
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise TypeError(f"parameters: {name!r} is a {kind}; give model.parameters() or named_parameters()")
        _check_kind(name, tensor)
    frozen = tuple((name, tensor) for name, tensor in pairs if not tensor.requires_grad)
    pairs = [(name, tensor) for name, tensor in pairs if tensor.requires_grad]
    if not pairs:
        raise ValueError("parameters: none that require a gradient were given")
    names, tensors = zip(*pairs, strict=True)
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        raise ValueError("parameters: a tensor was given twice; give each once (model.parameters() does)")
    for what in ("dtype", "device"):
        kinds = sorted({str(getattr(tensor, what)) for tensor in tensors})
        if len(kinds) > 1:
            raise ValueError(f"parameters: all must have one {what}, given {', '.join(kinds)}; convert the model first")
    if not tensors[0].dtype.is_floating_point:
        raise ValueError(f"parameters: must be real floating-point tensors, given {tensors[0].dtype}")
    if members is not None:
        _check_members(members, names, tensors)
    sizes = tuple(t.numel() // (members or 1) for t in tensors)
    named = all(isinstance(item, tuple) for item in given)
    return FlatParameters(names, tensors, sizes, members, named=named, frozen=frozen)


def _check_kind(name: str, tensor: Tensor) -> None:
    """Raises for tensors that are lazy, sharded or complex."""
    if is_lazy(tensor):
        raise ValueError(
            f"parameters: {name!r} has no shape before the first forward pass of its lazy module;"
            " call the model once on a batch, then make the optimizer"
        )
    if type(tensor).__name__ in SHARDED:
        raise TypeError(
            f"parameters: {name!r} is a {type(tensor).__name__}, of which a process holds a part (FSDP, tensor parallel);"
            " allowed are whole parameters: use DistributedDataParallel, or one device"
        )
    if not tensor.is_leaf:
        raise ValueError(f"parameters: {name!r} is computed from other tensors; give the parameters themselves")
    if tensor.is_complex():
        raise ValueError(
            f"parameters: {name!r} is {tensor.dtype}; allowed are real ones: keep real and imaginary part as two"
            " parameters (torch.view_as_real) and make the complex tensor of them in forward"
        )


def _check_members(members: int, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
    if members < 1:
        raise ValueError(f"members={members}: must be 1 or more, or None for a single training")
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.ndim == 0 or tensor.shape[0] != members:
            shape = tuple(tensor.shape)
            raise ValueError(f"members={members}: {name!r} has shape {shape}, its first axis must be {members}")
