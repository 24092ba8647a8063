"""Shows progress on standard error, as a bar on a terminal and as plain lines in a pipe."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from bench.process.signals import tell
from bench.protocol import State
from bench.records import Outcome, run_id, title_of
from bench.records.durations import amount_of, format_seconds, plural, unit_name


def in_words(outcome: Outcome) -> list[str]:
    """Returns how a run ended, in a few words each."""
    best = outcome.final.get("incumbent_validation_loss")
    parts = [str(outcome.status).replace("_", " "), f"{outcome.counted_seconds:.1f} s counted"]
    if outcome.shared_by > 1:
        parts[-1] += f" by {outcome.shared_by} runs"
    if outcome.valid and outcome.disturbed_because:
        parts[-1] += " (clock disturbed)"
    parts += [amount_of(outcome.trials, "trials")] if outcome.trials else []
    parts += [f"best validation {best:.4f}"] if best is not None else []
    if not outcome.valid:
        parts.append(f"NOT VALID: {'; '.join(outcome.invalid_because)}")
    if outcome.changes:
        parts.append(f"resumed with {', '.join(outcome.changes)}")
    if outcome.last_line:
        parts.append(outcome.last_line)
    return parts


class Display:
    """A display of the run in progress, its trial, the budget used, the best validation loss, and the time left for all
    runs."""

    def __init__(self, specs: Sequence[Mapping[str, Any]], before: int = 0):
        """Prepares the display; `before` is the number of runs that earlier processes of the command have made."""
        self._before, self._total, self._done, self._spent = before, before + len(specs), 0.0, 0.0
        one_unit = len({spec["budget"]["unit"] for spec in specs}) == 1
        self._weights = [spec["budget"]["amount"] if one_unit else 1.0 for spec in specs]
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._line, self._started = "", 0.0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[detail]}"),
                console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=1.0, detail="")
            with contextlib.suppress(OSError):  # a terminal that has been closed
                self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._bar is not None:
            with contextlib.suppress(OSError):  # a terminal that has been closed
                self._bar.stop()

    def start(self, number: int, spec: Mapping[str, Any], *, beside: int = 0, begun: float | None = None) -> None:
        """Shows that a run begins, or that it began at another moment; `beside` is how many others are made with it."""
        self._spec, self._number, self._started = spec, number, time.monotonic() if begun is None else begun
        what = f"{spec['task']['name']}, {title_of(spec)}, seed {spec['seed']}"
        what += f", and {plural(beside, 'more run')}" if beside else ""
        self._line = f"[{number}/{self._total}] {run_id(spec)} {what}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=escape(self._line), completed=0.0, detail="")

    def skip(self, number: int, spec: Mapping[str, Any]) -> None:
        """Prints that another runner has the run."""
        self._print(f"[{number}/{self._total}] {run_id(spec)} {title_of(spec)}: another runner has it")

    def progress(self, fraction: float, state: State) -> None:
        """Updates the bar; called a few times a second during the run."""
        if self._bar is None or self._task is None:
            return
        budget = self._spec["budget"]
        used = f"{fraction * budget['amount']:.3g} of {budget['amount']:g} {unit_name(budget['unit'])}"
        best = f"best validation {state.incumbent.validation_loss:.4f}" if state.incumbent else ""
        trial = f"trial {state.trial + 1}" if state.trials else ""
        parts = [part for part in (trial, used, best, self._remaining(fraction)) if part]
        self._bar.update(self._task, completed=fraction, detail=escape(", ".join(parts)))

    def end(self, outcome: Outcome) -> None:
        """Prints one line that stays about a run that has ended."""
        self._done += self._weight
        self._spent += time.monotonic() - self._started
        parts = in_words(outcome)
        parts.append(self._remaining(0.0))
        self._print(f"{self._line}: {', '.join(part for part in parts if part)}")

    @property
    def _weight(self) -> float:
        """The current run's weight."""
        return self._weights[self._number - self._before - 1]

    def _remaining(self, fraction: float) -> str:
        """Returns the time left for all runs, weighted by budget.  `fraction` is how much of the current run is over."""
        done = self._done + fraction * self._weight
        spent = self._spent + (time.monotonic() - self._started if fraction else 0.0)
        if spent < 2 or not done:
            return ""
        left = (sum(self._weights) - done) * spent / done
        return f"{format_seconds(left)} left" if left >= 1 else ""

    def _print(self, text: str) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):  # a terminal that has been closed
                self._bar.console.print(text, markup=False, highlight=False)
        else:
            tell(text)
