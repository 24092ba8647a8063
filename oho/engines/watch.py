"""Watches the first evaluation of a closure for modules with buffers, wrappers of models, and graphs that cannot be used.

A module is seen when it is called, by a hook that PyTorch offers for all modules at once; reentrant checkpointing is found
by what it leaves in autograd's graph.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DataParallel, DistributedDataParallel

REENTRANT = (
    "a closure uses reentrant checkpointing, whose backward pass knows nothing of the parameters inside: pass"
    " use_reentrant=False to torch.utils.checkpoint.checkpoint"
)
NO_GRADIENT = "None of the inputs have requires_grad=True"
"""Part of PyTorch's warning where reentrant checkpointing cuts the parameters inside from the loss."""
SMALLEST_SCALE = 256.0
SHARDING = ("FullyShardedDataParallel", "FSDPModule")


class Watch:
    """Records the modules that a closure calls, by identity, and which of them wrap a whole model."""

    def __init__(self) -> None:
        self.modules: dict[int, nn.Module] = {}
        self.replicated: DistributedDataParallel | None = None
        self.compiled = False
        self.scale = 1.0
        """The factor with which a GradScaler multiplied the loss."""
        self.is_done = False
        """Whether a closure has been evaluated to its end."""

    def call(self, closure: Callable[[], Tensor], on_module: Callable[[nn.Module], Any]) -> Tensor:
        """Calls the closure; `on_module` is given each module before it runs for the first time.

        Raises:
            TypeError: for a model that is sharded, or spread over devices by DataParallel.
            RuntimeError: for reentrant checkpointing.
        """
        self.modules.clear()
        with self._watching(on_module), warnings.catch_warnings():
            warnings.filterwarnings("error", message=NO_GRADIENT)
            warnings.filterwarnings("ignore", message=".*global hooks on modules")  # ours is harmless and soon gone
            try:
                loss = closure()
            except UserWarning as warning:
                if NO_GRADIENT not in str(warning):
                    raise
                raise RuntimeError(REENTRANT) from None
        if isinstance(loss, Tensor) and any(type(node).__name__ == "CheckpointFunctionBackward" for node in graph_of(loss)):
            raise RuntimeError(REENTRANT)
        self.scale = _scale_of(loss) if isinstance(loss, Tensor) else 1.0
        self.is_done = True
        return loss

    @contextmanager
    def _watching(self, on_module: Callable[[nn.Module], Any]) -> Iterator[None]:
        own = threading.get_ident()

        def see(module: nn.Module, args: Any) -> None:
            if id(module) in self.modules or threading.get_ident() != own:  # called by another training
                return
            self.modules[id(module)] = module
            self._note_wrapper(module)
            on_module(module)

        handle = register_module_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()

    def _note_wrapper(self, module: nn.Module) -> None:
        if isinstance(module, DataParallel):
            raise TypeError(
                "a closure's model is a torch.nn.DataParallel; allowed are DistributedDataParallel, or the module itself"
            )
        if any(kind.__name__ in SHARDING for kind in type(module).__mro__):
            raise TypeError(
                f"a closure's model is sharded ({type(module).__name__}), and no process has its whole parameters; allowed"
                " are DistributedDataParallel, or the module itself"
            )
        if isinstance(module, DistributedDataParallel):
            self.replicated = module
        in_place = getattr(module, "_compiled_call_impl", None) is not None
        self.compiled |= in_place or type(module).__name__ == "OptimizedModule"


def _scale_of(loss: Tensor) -> float:
    """Returns the large power of two by which a loss was multiplied last, or 1 if it was not."""
    factor = getattr(loss.grad_fn, "_saved_other", None) if type(loss.grad_fn).__name__ == "MulBackward0" else None
    if not isinstance(factor, Tensor) or factor.ndim or factor.requires_grad or float(factor) < SMALLEST_SCALE:
        return 1.0
    return float(factor) if math.log2(float(factor)).is_integer() else 1.0


def graph_of(loss: Tensor) -> Iterator[Any]:
    """Yields the nodes of the autograd graph that ends in `loss`."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(parent for parent, _ in node.next_functions)
