"""Whether the machine was fit for a timed run: the readings, and the reasons for which a run's seconds are void.

The readings are the fraction of its counted time for which the run had a processor, jumps of the system's clock against the
monotonic one, thermal throttling, other processes on the GPU, the time that a fixed piece of work takes before and after
the run, the number of processes that make runs side by side, and the time for which the command was stopped, which is not
counted.  A reading that the system does not provide is None.  Each process that works on a run has readings of its own: see
`bench.records.processes`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.process.share import workers
from bench.records.durations import plural
from bench.run.node import ask_gpu

LEAST_RUNNING = 0.9
"""A run that had a processor for a smaller fraction of its counted time was disturbed."""
LARGEST_JUMP = 1.0
"""Seconds by which the system's clock may jump: a larger jump means a suspended machine or a clock that was set."""
PROBE_SIZE, GPU_PROBE_SIZE, PROBE_REPEATS, PROBE_TRIES = 384, 2048, 8, 3
"""Rows of a square matrix; a GPU's is larger, for what it computes has to take longer than the host takes to start it."""
PROBE_KEPT_SECONDS = 1.0
"""How long a probe tells the machine's speed: one at a run's end is also that before the next run of the process."""
LOOK_SECONDS = 1.0
"""The least time between two looks at the GPU's state, which all members of a population share."""
GPU_SLOWDOWNS = ("hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")


class Verdict(NamedTuple):
    """A process's readings, and as sentences the reasons for which the seconds of its run are void."""

    readings: dict[str, Any]
    reasons: list[str]


def processor_clock(device: torch.device) -> Callable[[], float]:
    """Returns the clock of the time for which work has had a processor.

    On a GPU the main thread sleeps while others queue its work, so all threads are counted.
    """
    return time.process_time if device.type == "cuda" else time.thread_time


class Conditions:
    """A watcher of one process's work on a run, made before that begins, and asked at checkpoints and after its end.

    `stopped_seconds` is for how long the work has waited because the command was stopped.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._processor_time = processor_clock(device)
        self._running = self._elapsed = 0.0
        self.stopped_seconds = 0.0
        self._before = recent_probe(device)
        self._throttled = throttle_events()
        self._looked = -math.inf
        self._others: int | None = None
        self._slowdowns: set[str] | None = None
        self._clocks = time.time(), time.perf_counter()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Measures the processor time of a block of counted work."""
        processor, clock = self._processor_time(), time.perf_counter()
        try:
            yield
        finally:
            self._running += self._processor_time() - processor
            self._elapsed += time.perf_counter() - clock

    def look(self) -> None:
        """Reads the GPU's state while it is still warm from work, which takes 0.2 s, unless it was read a moment ago."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        others, slowdowns = others_on(self._device), slowdowns_of(self._device)
        if others is not None:
            self._others = max(others, self._others or 0)
        if slowdowns is not None:
            self._slowdowns = (self._slowdowns or set()) | slowdowns

    def verdict(self, earlier: Sequence[Mapping[str, Any]] = (), *, has_ended: bool = True) -> Verdict:
        """Returns the readings and the reasons for which the run's seconds are void.

        `earlier` are the readings of earlier processes of the run.  A process that has not ended is not probed.
        """
        system, steady = time.time() - self._clocks[0], time.perf_counter() - self._clocks[1]
        own = {
            "running": min(1.0, self._running / self._elapsed) if self._elapsed else 1.0, "working_seconds": self._elapsed,
        }  # fmt: skip
        readings = {
            **own,
            "running_so_far": _running_in([*earlier, own]),
            "stopped_seconds": self.stopped_seconds,
            "clock_jump_seconds": system - steady,
            "throttle_events": _difference(throttle_events(), self._throttled),
            "other_processes": self._others,
            "gpu_slowdowns": None if self._slowdowns is None else sorted(self._slowdowns),
            "side_by_side": workers(),
            "probe_seconds": [self._before, _probed_now(self._device) if has_ended else None],
        }
        return Verdict(readings, _reasons(readings))


def _running_in(processes: Sequence[Mapping[str, Any]]) -> float:
    """Returns the fraction of all processes' working time for which they had a processor."""
    working = sum(each["working_seconds"] for each in processes)
    return sum(each["running"] * each["working_seconds"] for each in processes) / working if working else 1.0


def _reasons(readings: dict[str, Any]) -> list[str]:
    reasons = []
    # A last process of a few milliseconds does not tell against the whole run, nor a good one for it.
    if max(readings["running"], readings["running_so_far"]) < LEAST_RUNNING:
        reasons.append(f"it had a processor for {readings['running']:.0%} of its counted time")
    if abs(readings["clock_jump_seconds"]) > LARGEST_JUMP:
        reasons.append(f"the clock jumped by {readings['clock_jump_seconds']:.3g} s")
    if readings["throttle_events"]:
        reasons.append(f"the processor was throttled {plural(readings['throttle_events'], 'time')}")
    if readings["other_processes"]:
        others = readings["other_processes"]
        reasons.append(f"{others} other {'process' if others == 1 else 'processes'} used the GPU")
    if (beside := readings["side_by_side"] - 1) > 0:
        reasons.append(f"it was made beside {plural(beside, 'other run')}")
    if readings["gpu_slowdowns"]:
        reasons.append(f"the GPU slowed down ({', '.join(readings['gpu_slowdowns'])})")
    return reasons


_recent: dict[tuple[torch.device, int], tuple[float, float]] = {}
"""The last probe at a run's end, by device and threads: when it was made, and the seconds that it took."""


def recent_probe(device: torch.device) -> float:
    """Returns what `speed_probe` does, or did a moment ago."""
    made, seconds = _recent.get((device, torch.get_num_threads()), (-math.inf, 0.0))
    return seconds if time.monotonic() - made < PROBE_KEPT_SECONDS else speed_probe(device)


def _probed_now(device: torch.device) -> float:
    seconds = speed_probe(device)
    _recent[device, torch.get_num_threads()] = time.monotonic(), seconds
    return seconds


@torch.no_grad()
def speed_probe(device: torch.device) -> float:
    """Returns the seconds that a fixed piece of work takes, as the best of several tries: the machine's current speed."""
    size = PROBE_SIZE if device.type == "cpu" else GPU_PROBE_SIZE
    matrix, best = torch.full((size, size), 1 / size, device=device), float("inf")
    for _ in range(PROBE_TRIES):
        start = time.perf_counter()
        product = matrix
        for _ in range(PROBE_REPEATS):
            product = torch.tanh(product @ matrix)
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return best


def is_answering(device: torch.device) -> bool:
    """Returns whether the device still works; after an error within a kernel, a GPU no longer does for this process."""
    try:
        speed_probe(device)
    except RuntimeError:
        return False
    return True


def throttle_events() -> int | None:
    """Returns how often the cores have been throttled since the machine started."""
    files = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    try:
        counts = [int(file.read_text()) for file in files]
    except (OSError, ValueError):
        return None
    return sum(counts) if counts else None


def others_on(device: torch.device) -> int | None:
    """Returns the number of other processes on the GPU."""
    lines = ask_gpu(device, "--query-compute-apps=pid")
    return None if lines is None else max(0, len(lines) - 1)


def slowdowns_of(device: torch.device) -> set[str] | None:
    """Returns the reasons for which the GPU now runs more slowly than it could."""
    lines = ask_gpu(device, "--query-gpu=" + ",".join(f"clocks_event_reasons.{name}" for name in GPU_SLOWDOWNS))
    if not lines:
        return None
    states = [state.strip() for state in lines[0].split(",")]
    return {name for name, state in zip(GPU_SLOWDOWNS, states, strict=False) if state == "Active"}


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before

