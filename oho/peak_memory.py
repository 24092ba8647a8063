"""The largest number of bytes that PyTorch's tensors take at one time, of those made inside a block."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """`peak` in bytes.  Counts memory by the tensors that hold it, on any device; what a kernel uses inside is not seen."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to hide from the compiler, PyTorch would import it: seconds, where nothing is compiled

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its operations."""
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                storage = leaf.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._alive:
                    self._alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._alive.pop, storage._cdata, 0)
        self.peak = max(self.peak, sum(self._alive.values()))
        return result
