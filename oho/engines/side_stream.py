"""A stream for work that other work need not wait for, which a GPU then does at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """Work beside the current stream; without a GPU, it is done at once.

    Memory that a tensor leaves goes to the next one of its own stream, which does not ask whether others still read it.
    So tensors of one stream that another one reads are kept until it has been waited for.
    """

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._read: list[Tensor] = []

    @contextmanager
    def work(self, *read: Tensor) -> Iterator[None]:
        """Does the block's work after all earlier work and beside all later work; keeps the tensors that it has `read`."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        self._read += read
        with torch.cuda.stream(self._stream):
            yield

    def mark(self) -> torch.cuda.Event | None:
        """Returns what `wait` waits for: the work until now."""
        return None if self._stream is None else self._stream.record_event()

    def join(self) -> None:
        """Makes later work of the current stream wait for all work until now."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._read.clear()


def wait(event: torch.cuda.Event | None) -> None:
    """Makes later work of the current stream wait for what was marked."""
    if event is not None:
        torch.cuda.current_stream().wait_event(event)
