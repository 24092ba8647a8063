"""What a step costs: time beside plain SGD, peak memory, and whether either grows.  `python -m bench.measure.speed --help`.

All variants take turns within one process, with plain SGD before and after each turn.  A ratio is relative to those two
neighbours, so that a machine whose clock wanders disturbs both alike.  Memory is measured in a separate process for each
variant.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from bench.measure.steps import ADVANTAGE, BATCH, COMPARISONS, GLOBAL_WORK, VARIANTS, Problem, Step
from bench.measure.turns import mean_seconds
from bench.process.surroundings import begin
from bench.run.environment import describe_environment, place_and_date
from oho.freed_memory import keep_freed_memory

ROUNDS, TURN_SECONDS, WARM_UP = 40, 0.1, 20
LONG_PART = 1_000


class Turn(NamedTuple):
    """One turn of a variant: its seconds per step and its ratio to the plain SGD beside it."""

    seconds: float
    ratio: float


def time_rounds(device: torch.device, rounds: int) -> dict[str, list[Turn]]:
    """Returns the turns of each variant, one per round."""
    steps = {name: variant.make(Problem(device)) for name, variant in VARIANTS.items()}
    beside = VARIANTS["plain SGD"].make(Problem(device))
    for step in (beside, *steps.values()):
        mean_seconds(step, WARM_UP, device)
    lengths = {name: max(3, int(TURN_SECONDS / mean_seconds(step, WARM_UP, device))) for name, step in steps.items()}
    turns: dict[str, list[Turn]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            before = mean_seconds(beside, lengths["plain SGD"] // 2, device)
            seconds = mean_seconds(step, lengths[name], device)
            after = mean_seconds(beside, lengths["plain SGD"] // 2, device)
            turns[name].append(Turn(seconds, 2 * seconds / (before + after)))
    return turns


def step_mebibytes(device: torch.device, make: Callable[[Problem], Step], count: int = 30) -> float:
    """Returns the peak memory of an optimizer and some steps beyond network and data: the process's, or the GPU's."""
    VARIANTS["plain SGD"].make(Problem(device))(0)  # PyTorch loads parts of itself at the first step
    problem = Problem(device)
    before = _in_use(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    step = make(problem)
    for index in range(count):
        step(index)
    return (torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else _status("VmHWM")) - before


def _in_use(device: torch.device) -> float:
    """Returns the memory in use in MiB; in a process, memory that was freed and kept is handed back first."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def long_run(device: torch.device, part: int = LONG_PART) -> str:
    """Returns one sentence on twenty parts of a long run of Global steps, each followed by plain SGD."""
    step, beside = (VARIANTS[name].make(Problem(device)) for name in ("Global", "plain SGD"))
    mean_seconds(beside, WARM_UP, device)
    ratios, memory = [], []
    for _ in range(20):
        seconds = mean_seconds(step, part, device)
        ratios.append(seconds / mean_seconds(beside, max(1, part // 5), device))
        memory.append(_in_use(device))
    first, last = statistics.median(ratios[:5]), statistics.median(ratios[-5:])
    return (
        f"{20 * part:,} Global steps: {first:.2f} plain steps each in the first quarter, {last:.2f} in the last;"
        f" memory in use {memory[0]:.1f} MiB after {part:,} steps, {memory[-1]:.1f} MiB at the end."
    )


def alone(device: torch.device, *arguments: str) -> str:
    """Returns what this module prints in a process of its own."""
    command = [sys.executable, "-m", "bench.measure.speed", "--device", str(device), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def spread(values: Iterable[float]) -> str:
    """Returns the median and the quartiles as text."""
    first, middle, last = statistics.quantiles(values, n=4)
    return f"{middle:.2f} [{first:.2f}, {last:.2f}]"


def table(turns: dict[str, list[Turn]], memory: dict[str, float]) -> list[str]:
    """Returns the Markdown table, one row per variant."""
    lines = [
        "| step | what | ms (median) | × plain SGD: median [quartiles] | asked | memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        asked = "" if variant.asked is None else f"≤ {variant.asked:.1f}"
        milliseconds = 1e3 * statistics.median(turn.seconds for turn in turns[name])
        ratio = spread(turn.ratio for turn in turns[name])
        lines.append(f"| {name} | {variant.what} | {milliseconds:.3f} | {ratio} | {asked} | {memory[name]:.1f} |")
    return lines


def comparisons(turns: dict[str, list[Turn]]) -> list[str]:
    """Returns the Markdown table of ratios that something is asked of, and a line on the published design."""

    def ratio(above: str, below: str) -> str:
        return spread(a.ratio / b.ratio for a, b in zip(turns[above], turns[below], strict=True))

    published = statistics.median(turn.ratio for turn in turns["published design"])
    return [
        "| step | over | × : median [quartiles] | asked | multiply-adds, × |",
        "|---|---|---|---|---|",
        *(f"| {c.above} | {c.below} | {ratio(c.above, c.below)} | ≤ {c.asked:.2f} | {c.work} |" for c in COMPARISONS),
        "",
        f"- Published design over Global: {ratio('published design', 'Global')} (asked: at least {ADVANTAGE}, which needs a"
        f" Global step of {published / ADVANTAGE:.1f} plain steps; its multiply-adds alone equal {GLOBAL_WORK}).",
    ]


def main() -> None:
    """Prints the table, and writes it if `--out` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", help="a sentence for the head of the file, on the machine's load for example")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--long-run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no usable GPU on this machine; use cpu")
    device = torch.device(given.device)
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    if given.memory_of:
        print(step_mebibytes(device, VARIANTS[given.memory_of].make))
        return
    if given.long_run:
        print(long_run(device))
        return
    if device.type == "cpu" and not sys.platform.startswith("linux"):
        sys.exit("bench.measure.speed: memory is read from /proc, which this system lacks; run it on Linux")
    turns = time_rounds(device, given.rounds)
    memory = {name: float(alone(device, "--memory-of", name)) for name in VARIANTS}
    place = describe_environment(device, given.threads, data=None)
    lines = [
        "# What a step costs",
        "",
        f"Network 784-128-128-128-10, batches of {BATCH} and {BATCH}, float32. {place_and_date(place)}",
        f"{given.rounds} turns of about {TURN_SECONDS} s per variant, each compared with plain SGD before and after it.",
        "Memory is the peak beyond network and data, in a separate process.",
        *([given.note] if given.note else []),
        "",
        *table(turns, memory),
        "",
        *comparisons(turns),
        f"- {alone(device, '--long-run')}",
    ]
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    begin()
    main()
