"""How long a step takes on a device, what it starts there and how often the host waits, and its replay as a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from bench.measure.turns import mean_seconds, synchronise

Step = Callable[[], object]
TURNS, WARM_UP, PROFILED = 5, 3, 5
MARK = "Optimizer."
"""How the profiler's marks begin, such as Optimizer.step#OHO.step; all else on the device is a kernel, a copy or a fill."""


class CannotCaptureError(Exception):
    """A step cannot be captured; the message says why."""


def milliseconds(step: Step, device: torch.device, seconds: float) -> float:
    """Returns the median milliseconds of a step over turns that take about so many seconds in all."""
    for _ in range(WARM_UP):
        step()
    first = mean_seconds(lambda index: step(), 1, device)
    count = max(1, min(10_000, int(seconds / TURNS / max(first, 1e-6))))
    return 1e3 * statistics.median(mean_seconds(lambda index: step(), count, device) for _ in range(TURNS))


def launches(step: Step, device: torch.device) -> list[str]:
    """Returns kernels, waits of the host and copies to the host a step; nothing is launched on a CPU."""
    if device.type != "cuda":
        return ["", "", ""]
    with_steps, without = _counts(step, PROFILED, device), _counts(step, 0, device)
    kernels, waits, copies = ((found - base) / PROFILED for found, base in zip(with_steps, without, strict=True))
    return [f"{kernels:.0f}", f"{waits:.1f}", f"{copies:.1f}"]


def _counts(step: Step, steps: int, device: torch.device) -> tuple[int, int, int]:
    """Returns the kernels, the waits of the host and the copies to the host of some steps and of their measurement."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as log:
        for _ in range(steps):
            step()
        synchronise(device)
    events = log.events() or []
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    return (
        sum(not event.name.startswith(MARK) for event in on_device),
        sum("Synchronize" in event.name for event in events),
        sum("DtoH" in event.name for event in on_device),
    )


def captured(step: Step, device: torch.device) -> Step:
    """Returns what replays the step, whose inputs and outputs stay where they are, as one CUDA graph.

    Raises:
        CannotCaptureError: without a GPU, or for a step that asks the host for something.
    """
    if device.type != "cuda":
        raise CannotCaptureError("graph: not available on a CPU")
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    except Exception as error:
        raise CannotCaptureError(f"graph: not available ({' '.join(str(error).split())[:100]})") from None
    return graph.replay
