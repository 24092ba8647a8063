"""A closure that is evaluated again within one step: from the same random state, and with the same buffers.

Dropout then draws the masks of the first evaluation, and a power iteration or running statistics start where they did then.
What the first evaluation left, in buffers and random state, is there again after each later one: a step moves them once.
A closure whose first evaluation has drawn nothing is called again as it is.
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
    """The buffers of modules: which tensors they are, and what is in them."""

    def __init__(self) -> None:
        self._noted: dict[tuple[int, str], tuple[nn.Module, Tensor, Tensor]] = {}

    def add(self, module: nn.Module) -> None:
        """Notes the buffers that a module has now."""
        for name, buffer in module.named_buffers(recurse=False):
            if not torch._C._functorch.is_functorch_wrapped_tensor(buffer):  # torch.func's, there for a while
                self._noted[id(module), name] = (module, buffer, buffer.detach().clone())

    def now(self) -> Buffers:
        """Returns what the same modules have now."""
        present = Buffers()
        for module in {id(module): module for module, _, _ in self._noted.values()}.values():
            present.add(module)
        return present

    def tensors(self) -> list[Tensor]:
        """Returns the buffers themselves."""
        return [tensor for _, tensor, _ in self._noted.values()]

    def differ(self) -> bool:
        """Returns whether buffers are other tensors now, or hold other values."""
        return any(
            module._buffers.get(name) is not tensor or not _same(tensor, value, nan_to_num=True)
            for (_, name), (module, tensor, value) in self._noted.items()
        )

    @torch.no_grad()
    def put_back(self) -> None:
        """Makes buffers the tensors that they were, with the values that they had."""
        for (_, name), (module, tensor, value) in self._noted.items():
            if module._buffers.get(name) is not tensor:
                module._buffers[name] = tensor
            if not _same(tensor, value):  # what was not changed may be saved in a graph that is still used
                tensor.copy_(value)


def _same(tensor: Tensor, value: Tensor, *, nan_to_num: bool = False) -> bool:
    """Returns whether tensors hold the same; NaN is not the same as itself, unless it is made a number."""
    pairs = zip(_dense_parts(tensor), _dense_parts(value), strict=True)
    return all(torch.equal(*(part.nan_to_num() for part in pair) if nan_to_num else pair) for pair in pairs)


def _dense_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns the tensors that a sparse one consists of, or the tensor itself."""
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    places = (tensor.crow_indices(), tensor.col_indices()) if by_rows else (tensor.ccol_indices(), tensor.row_indices())
    return (*places, tensor.values())


class Repeatable:
    """A closure whose first call is the step's own, and whose later calls begin where the first one did.

    Used as a context, it puts buffers back at the end of the block to where the first call left them: not sooner, since a
    graph may hold them.  `watch` sees which modules have buffers, and adds them to `buffers`; both serve for many steps.
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
        """What the calls returned."""

    def __call__(self) -> Tensor:
        """Calls the closure."""
        loss = self._first() if self._start is None else self._again(self._start)
        if isinstance(loss, Tensor):
            self.losses.append(loss.detach())
        return loss

    def buffers(self) -> list[Tensor]:
        """Returns the buffers of the modules that the first call met."""
        return self._known.tensors()

    def __enter__(self) -> Repeatable:
        """Begins."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves buffers as after the first call."""
        if self._after is not None:
            self._after.put_back()

    def has_moved(self) -> bool:
        """Returns whether the calls drew random numbers, or left other buffers than they found."""
        return self._draws or (self._start is not None and self._start.differ())

    def undo(self) -> None:
        """Puts buffers and random state back to where the first call started."""
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
