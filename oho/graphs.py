"""A function of fixed shape that is recorded once and then replayed, as a CUDA graph: the host starts it with one call.

    calls       what is done
    1, 2, 3     the function is called as it is, on a stream of its own: kernels are chosen, memory is allocated
    4           it is captured, which runs nothing, and replayed
    5, ...      it is replayed

All that a captured function reads and writes has to stay in its place; new inputs are copied into `StaticInputs`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from oho.stand_in import NotCapturableError, StandIn

WARM_UP = 3
"""Calls before a capture, as PyTorch's documentation asks for."""
Around = Callable[[], AbstractContextManager[object]]
"""Makes a context manager that is entered around a capture."""


class Graph(Protocol):
    """What a function is captured into."""

    def capture(self, function: Callable[[], Tensor]) -> None:
        """Records the operations of the function."""
        ...

    def replay(self) -> Tensor:
        """Repeats the operations; returns the function's result, which the next replay overwrites."""
        ...


class CudaGraph:
    """A `torch.cuda.CUDAGraph`; `generators` are those that the function draws from, besides the device's own."""

    def __init__(self, stream: torch.cuda.Stream, generators: Sequence[torch.Generator] = ()):
        self._stream, self._graph, self._generators = stream, torch.cuda.CUDAGraph(), generators

    def capture(self, function: Callable[[], Tensor]) -> None:
        """Records the kernels that the function starts.  Raises NotCapturableError if it waits for one of them."""
        for generator in self._generators:
            if generator.device.type == "cuda":  # a CPU's, from which no graph draws, would crash PyTorch
                self._graph.register_generator_state(generator)
        try:
            with _no_collection(), torch.cuda.graph(self._graph, stream=self._stream):
                self._result = function()
        except RuntimeError as error:
            # The end of a broken capture fails as well, and hides what broke it.
            reason = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            raise NotCapturableError(f"the step cannot be captured: {str(reason).splitlines()[0]}") from error

    def replay(self) -> Tensor:
        """Starts the graph."""
        self._graph.replay()
        return self._result


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collects garbage before the block and not in it, where freeing an earlier graph would break the capture."""
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Captured:
    """Calls a function without arguments three times, and then captures and replays it.  The next call overwrites a result.

    `generators` are those that the function draws from, besides the device's own; they are read when the function is
    captured, and each call draws on from where they stand.  `around` makes a context manager that is entered around the
    capture, such as one that books its time.  On a CPU, where there are no graphs, `stand_in=True` checks for tests
    whether a graph would repeat the function.

    Raises:
        ValueError: for a CPU without `stand_in`.
        NotCapturableError: at the call that captures, or from the stand-in, for a function that no graph can repeat.
    """

    def __init__(
        self,
        function: Callable[[], Tensor],
        device: torch.device,
        *,
        generators: Sequence[torch.Generator] = (),
        around: Around = nullcontext,
        stand_in: bool = False,
    ):
        if device.type != "cuda" and not stand_in:
            raise ValueError(f"a graph needs a CUDA device; the parameters are on {device}")
        self._function, self._around, self._calls = function, around, 0
        self._is_captured, self._refused = False, ""
        self._stream = None if stand_in else torch.cuda.Stream(device)
        self._graph: Graph = StandIn(generators) if self._stream is None else CudaGraph(self._stream, generators)

    @property
    def is_captured(self) -> bool:
        """Whether the function has been captured, so that calls are replays."""
        return self._is_captured

    def __call__(self) -> Tensor:
        """Makes one call."""
        if self._calls < WARM_UP:
            self._calls += 1
            return self._beside()
        if not self._is_captured:
            self._capture()
        return self._graph.replay()

    def _capture(self) -> None:
        """Captures the function, unless that has failed: a CUDA graph whose capture broke cannot begin another one."""
        if self._refused:
            raise NotCapturableError(self._refused)
        try:
            with self._around():
                self._graph.capture(self._function)
        except NotCapturableError as error:
            self._refused = str(error)
            raise
        self._is_captured = True

    def _beside(self) -> Tensor:
        """Calls the function on the stream that captures, since what autograd keeps belongs to a stream."""
        if self._stream is None:
            return self._function()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._function()
        torch.cuda.current_stream().wait_stream(self._stream)
        result.record_stream(torch.cuda.current_stream())
        return result


class StaticInputs:
    """Tensors that keep their place and take the values of new inputs; they start as copies of the first ones."""

    def __init__(self, first: Sequence[Tensor], device: torch.device):
        self.tensors = tuple(tensor.detach().to(device, copy=True) for tensor in first)

    def fill(self, inputs: Sequence[Tensor]) -> None:
        """Copies the values of new inputs.

        Raises:
            ValueError: for another number of tensors, another shape or another type.
        """
        kinds, present = ([(tuple(each.shape), each.dtype) for each in tensors] for tensors in (inputs, self.tensors))
        if kinds != present:
            raise ValueError(f"a captured step takes inputs of one kind, {_said(present)}; given {_said(kinds)}")
        for place, tensor in zip(self.tensors, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)


def _said(kinds: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in kinds) or "none"
