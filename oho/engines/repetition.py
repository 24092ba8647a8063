"""Closures that are evaluated again within one step: from the same random state, and with the same buffers.

Dropout then draws the masks of the first evaluation, and a power iteration or running statistics start where they started
then.  After each later evaluation, buffers and random state are again as the first one left them, so that a step moves them
once.  If the first evaluation drew no random numbers, the random state is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from oho.engines.watch import Watch
from oho.randomness import has_moved, random_state, replay, restore

Closure = Callable[[], Tensor]


class Buffers:
    """The buffers of modules: the tensors, and copies of their values."""

    def __init__(self) -> None:
        self._noted: dict[tuple[int, str], tuple[nn.Module, Tensor, Tensor]] = {}

    def add(self, module: nn.Module) -> None:
        """Records the present buffers of a module."""
        for name, buffer in module.named_buffers(recurse=False):
            if not torch._C._functorch.is_functorch_wrapped_tensor(buffer):  # torch.func puts it there for a while
                self._noted[id(module), name] = (module, buffer, buffer.detach().clone())

    def now(self) -> Buffers:
        """Returns the present buffers of the same modules."""
        present = Buffers()
        for module in {id(module): module for module, _, _ in self._noted.values()}.values():
            present.add(module)
        return present

    def tensors(self) -> list[Tensor]:
        """Returns the buffers themselves."""
        return [tensor for _, tensor, _ in self._noted.values()]

    def differ(self) -> bool:
        """Returns whether buffers have become other tensors, or have other values."""
        return any(
            module._buffers.get(name) is not tensor or not _same(tensor, value, nan_to_num=True)
            for (_, name), (module, tensor, value) in self._noted.items()
        )

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores the tensors that were recorded, and their values."""
        for (_, name), (module, tensor, value) in self._noted.items():
            if module._buffers.get(name) is not tensor:
                module._buffers[name] = tensor
            if not _same(tensor, value):  # an unchanged one may be saved in a graph that is still used
                tensor.copy_(value)


def _same(tensor: Tensor, value: Tensor, *, nan_to_num: bool = False) -> bool:
    """Returns whether tensors have the same values; NaN differs from itself unless `nan_to_num`."""
    pairs = zip(_dense_parts(tensor), _dense_parts(value), strict=True)
    return all(torch.equal(*(part.nan_to_num() for part in pair) if nan_to_num else pair) for pair in pairs)


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns the tensors of which a sparse one consists, or the tensor itself."""
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    places = (tensor.crow_indices(), tensor.col_indices()) if by_rows else (tensor.ccol_indices(), tensor.row_indices())
    return (*places, tensor.values())


class Repeatable:
    """A closure whose first call is the step's own, and whose later calls begin where the first one did.

    Used as a context, it restores buffers at the end of the block as the first call left them, and not sooner, since a
    graph may hold them.  `watch` finds the modules that have buffers, which `buffers` records; both serve for many steps.
    """

    def __init__(
        self, closure: Closure, device: torch.device, *, watch: Watch | None = None, buffers: Buffers | None = None
    ):
        self.closure, self._device = closure, device
        self._watch = Watch() if watch is None else watch
        self._known = Buffers() if buffers is None else buffers
        self._random: list[Tensor] = []
        self._draws = False
        self._start: Buffers | None = None
        self._after: Buffers | None = None
        self.losses: list[Tensor] = []
        """The losses that the calls returned, detached."""

    def __call__(self) -> Tensor:
        """Calls the closure."""
        loss = self._first() if self._start is None else self._again(self._start)
        if isinstance(loss, Tensor):
            self.losses.append(loss.detach())
        return loss

    def buffers(self) -> list[Tensor]:
        """Returns the buffers of the modules that the first call used."""
        return self._known.tensors()

    def __enter__(self) -> Repeatable:
        """Begins the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves buffers as the first call left them."""
        if self._after is not None:
            self._after.put_back()

    def has_moved(self) -> bool:
        """Returns whether the calls drew random numbers, or left other buffers than they found."""
        return self._draws or (self._start is not None and self._start.differ())

    def undo(self) -> None:
        """Restores buffers and random state as the first call found them."""
        if self._start is not None:
            self._start.put_back()
            if self._draws:
                restore(self._random, self._device)

    def _first(self) -> Tensor:
        self._random, self._start = random_state(self._device), self._known.now()
        self._draws = True  # if it raises, it may have drawn
        loss = self.closure() if self._watch.is_done else self._watch.call(self.closure, self._note)
        self._draws = has_moved(self._random, self._device)
        return loss

    def _again(self, start: Buffers) -> Tensor:
        self._after = self._after or start.now()
        start.put_back()
        with replay(self._random, self._device) if self._draws else nullcontext():
            return self.closure()

    def _note(self, module: nn.Module) -> None:
        for buffers in (self._known, self._start):
            if buffers is not None:
                buffers.add(module)


def repeatable(closure: Closure, device: torch.device) -> Repeatable:
    """Returns a closure that can be called again, itself if it is one already."""
    return closure if isinstance(closure, Repeatable) else Repeatable(closure, device)
