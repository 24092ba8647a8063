"""The suite's own cost beside a run: runner, tracking and clock as fractions of the counted time.

    python -m bench.measure.overhead CONFIG [--device cpu] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiment.expansion import load_experiment
from bench.process.surroundings import begin
from bench.protocol.ledger import Ledger
from bench.records import Outcome
from bench.run.environment import place_and_date
from bench.run.runner import run
from bench.tracking.wandb_sink import open_sink

LIMIT = 0.03
"""The largest fraction of the counted time that runner, clock and tracking together may take."""
SWITCHES = 200_000
HEADER = "| method | steps | counted s | runner | tracking | clock | together | sum of accounts − wall time |"


class CountingClock:
    """The system's monotonic clock, which counts how often it was read."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        """Returns the time in seconds."""
        self.readings += 1
        return time.perf_counter()


def seconds_a_reading() -> float:
    """Returns the seconds that one switch between accounts takes, without synchronisation."""
    ledger = Ledger()
    start = time.perf_counter()
    for _ in range(SWITCHES // 2):
        ledger.switch("train")
        ledger.switch("hypergradient")
    return (time.perf_counter() - start) / SWITCHES


def measure(spec: Mapping[str, Any], project: str) -> tuple[Outcome, int]:
    """Returns a run's outcome and how often it read its clock; the run's folder is thrown away."""
    clock = CountingClock()
    sink = partial(open_sink, mode="offline", project=project, experiment="overhead")
    with tempfile.TemporaryDirectory() as folder:
        return run(dict(spec), Path(folder), data_root=None, open_sink=sink, now=clock), clock.readings


def row(label: str, outcome: Outcome, readings: int, reading: float) -> tuple[str, float]:
    """Returns one line of the table and its fraction of the counted time."""
    counted = outcome.counted_seconds
    shares = [outcome.accounts["runner"] / counted, outcome.accounts["tracking"] / counted, readings * reading / counted]
    gap = sum(outcome.accounts.values()) - outcome.wall_seconds
    cells = [label, f"{outcome.steps:,}", f"{counted:.2f}", *(f"{share:.2%}" for share in (*shares, sum(shares)))]
    return f"| {' | '.join(cells)} | {gap:.1e} s |", sum(shares)


def main() -> None:
    """Prints the table, and writes it if `--out` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    experiment = load_experiment(given.config, device=given.device)
    reading = seconds_a_reading()
    rows, shares, outcome = [], [], None
    for spec in experiment.specs:
        outcome, readings = measure(spec, experiment.tracking.project)
        if not outcome.status.is_result:
            reason = outcome.last_line
            raise SystemExit(f"bench.measure.overhead: {spec['method']['label']}: {reason}")
        line, share = row(spec["method"]["label"], outcome, readings, reading)
        rows.append(line)
        shares.append(share)
    assert outcome is not None
    place = dict(outcome.environment)
    lines = [
        "# What the suite costs beside a run",
        "",
        f"{place['data']}, {experiment.budget.amount:g} counted seconds per run, W&B offline. {place_and_date(place)}",
        "Runner: records, progress, loop. Clock: its readings, which are part of the counted time; each switches an account"
        f" in {1e6 * reading:.2f} µs. Percentages are of the counted time.",
        "",
        HEADER,
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Largest: {max(shares):.2%} (limit: {LIMIT:.0%}).",
    ]
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    begin()
    main()
