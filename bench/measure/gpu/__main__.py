"""Runs the parts one after another, each in a process of its own: `python -m bench.measure.gpu --help`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.measure.gpu.kit import FOLDER, unpack
from bench.process.surroundings import begin

MINUTES = 8.0
GRACE_SECONDS = 4.0
"""How much longer than its share a part may take before it is ended."""
LEAST_SECONDS = 10.0
"""A part is skipped if less is left for it."""


class Part(NamedTuple):
    """`function` in `module` of this package, with a share of the time in seconds of eight minutes."""

    module: str
    function: str
    seconds: float


PARTS = (
    Part("correctness", "correctness", 25),
    Part("methods", "methods", 65),
    Part("speed", "steps", 20),
    Part("speed", "populations", 10),
    Part("speed", "residual", 25),
    Part("experiments", "performance", 140),
    Part("experiments", "cifar10", 55),
    Part("experiments", "starts", 140),
)
"""In order of priority; what a part does not use is shared by those after it."""


def run_part(part: Part, given: argparse.Namespace, seconds: float) -> None:
    """Does a part in this process."""
    import torch

    from oho.freed_memory import keep_freed_memory

    keep_freed_memory()
    if given.device == "cpu":
        torch.set_num_threads(given.threads)
    function = getattr(importlib.import_module(f"bench.measure.gpu.{part.module}"), part.function)
    function(given.out, torch.device(given.device), given.tiny, 0.0 if given.tiny else seconds)


def run_all(given: argparse.Namespace, environment: Mapping[str, str]) -> bool:
    """Does parts, each in a process of its own, and returns whether every one of them ended by itself and well."""
    deadline, went_well = time.monotonic() + 60 * given.minutes, True
    parts = [part for part in PARTS if part.function in (given.only or [part.function])]
    for place, part in enumerate(parts):
        left = deadline - time.monotonic() - GRACE_SECONDS
        seconds = left * part.seconds / sum(other.seconds for other in parts[place:])
        if seconds < (0 if given.tiny else LEAST_SECONDS):
            print(f"{part.function}: skipped, the time is over", flush=True)
            went_well = False
            continue
        begun = time.monotonic()
        ending = _alone(part, given, environment, seconds)
        print(f"{part.function}: {ending} after {time.monotonic() - begun:.0f} s", flush=True)
        went_well &= ending == "done"
    return went_well


def _alone(part: Part, given: argparse.Namespace, environment: Mapping[str, str], seconds: float) -> str:
    """Does a part in a process of its own and returns how that ended."""
    words = ["--part", part.function, "--seconds", f"{seconds:.1f}", "--device", given.device, "--out", given.out]
    words += ["--threads", given.threads, *(["--tiny"] if given.tiny else [])]
    command = [sys.executable, "-m", "bench.measure.gpu", *map(str, words)]
    environment = {**os.environ, **environment, "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"cut off at its share of {seconds:.0f} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return "done" if code == 0 else f"failed (exit code {code})"


def main() -> int:
    """Reads the command line and returns the exit code: 1 if a part failed or was cut off, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="bench.measure.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="where tables and records go")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the time in all [default: 8]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of PyTorch on a CPU")
    parser.add_argument("--tiny", action="store_true", help="do a little of each part, to try the script")
    parser.add_argument("--kit", type=Path, default=FOLDER, help="what `make gpu-kit` has filled")
    names = [part.function for part in PARTS]
    parser.add_argument("--only", choices=names, nargs="+", help="the parts to do, which then have all the time")
    parser.add_argument("--part", choices=names, help="do only this part, in this process")
    parser.add_argument("--seconds", type=float, default=60.0, help="the time of that part")
    given = parser.parse_args()
    environment = unpack(given.kit)
    os.environ.update(environment)
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no usable GPU on this machine; --device cpu --tiny tries the script")
    if given.part:
        run_part(next(part for part in PARTS if part.function == given.part), given, given.seconds)
        return 0
    return 0 if run_all(given, environment) else 1


if __name__ == "__main__":
    begin()
    sys.exit(main())
