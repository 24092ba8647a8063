"""A stream for work that other work need not wait for, which a GPU then does at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Mark = torch.cuda.Event | None
"""The end of some work, which `wait` waits for; None where there is nothing to wait for."""


class SideStream:
    """Work beside the current stream; without a GPU, it is done at once.

    PyTorch gives the memory of a freed tensor to the next one of the same stream, whoever still reads it.  So a tensor of
    the current stream that is read here is kept until `join`.  A tensor made here may be freed at any time, since the next
    `work` waits for the current stream, and thereby for all that has read it there.
    """

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._read: list[Tensor] = []
        self._is_behind = False

    @contextmanager
    def work(self, *read: Tensor) -> Iterator[None]:
        """Does the block's work after all earlier work and beside all later work; keeps the tensors that it has `read`."""
        self._is_behind = True
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        self._read += read
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> Mark:
        """Returns the end of the work until now."""
        return None if self._stream is None else self._stream.record_event()

    def join(self) -> None:
        """Makes later work of the current stream wait for all work until now, if there is any.

        A capture cannot wait for a stream that has no part in it.
        """
        if self._stream is not None and self._is_behind:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._read.clear()
        self._is_behind = False


def wait(mark: Mark) -> None:
    """Makes later work of the current stream wait for what was marked."""
    if mark is not None:
        torch.cuda.current_stream().wait_event(mark)
