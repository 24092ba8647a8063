"""Shows the progress of runs on many nodes in one view: a table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.command.progress import in_words
from bench.process.signals import tell
from bench.records import Outcome, Status, run_ids, title_of
from bench.records.durations import format_seconds, plural, unit_name

REFRESH_SECONDS = 1.0
"""The time between two looks at the runs' records on a terminal."""
LINE_SECONDS = 60.0
"""The time between two lines about all runs in a pipe."""
SHOWN_RUNS = 12
"""How many runs in progress the table shows."""


class _Entry(NamedTuple):
    number: int
    name: str
    budget: Mapping[str, Any]


class NodesDisplay:
    """A display of all runs: how many are done, at work and queued, which are where, failures, and what is left.

    `places` has the node of each run in progress.
    """

    def __init__(self, specs: Sequence[Mapping[str, Any]], before: int = 0):
        """Prepares the display; `before` is the number of runs that earlier processes of the command have made."""
        self._total = before + len(specs)
        self._entries = {
            identity: _Entry(
                number, f"{spec['task']['name']}, {title_of(spec)}, seed {spec['seed']}", spec["budget"]
            )
            for number, (identity, spec) in enumerate(zip(run_ids(specs), specs, strict=True), start=before + 1)
        }
        self._one_unit = len({spec["budget"]["unit"] for spec in specs}) == 1
        self.places: dict[str, str] = {}
        self._fractions: dict[str, float] = {}
        self._left = dict.fromkeys(self._entries, 1.0)
        self._worked = 0.0
        self._done, self._failed, self._counted = before, 0, 0.0
        self._begun = self._shown = time.monotonic()
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None

    def __enter__(self) -> NodesDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._live is not None:
            with contextlib.suppress(OSError):  # a terminal that has been closed
                self._live.stop()

    def start(self, identity: str, node: str, used: float) -> None:
        """Notes that a run begins on a node, or continues there with so much of its budget used."""
        self.places[identity] = node
        self._fractions.setdefault(identity, used / self._entries[identity].budget["amount"])

    def look(self, nodes: int, queued: int, used: Callable[[str], float]) -> None:
        """Shows how far the runs are, from time to time; `used` returns how much of a run's budget is used."""
        now = time.monotonic()
        if now - self._shown < (LINE_SECONDS if self._live is None else REFRESH_SECONDS):
            return
        self._shown = now
        for identity in self.places:
            self._progressed(identity, used(identity) / self._entries[identity].budget["amount"])
        summary = self._summary(nodes, queued)
        if self._live is None:
            tell(summary)
            return
        table = Table.grid(padding=(0, 2))
        for identity, node in list(self.places.items())[:SHOWN_RUNS]:
            number, name, budget = self._entries[identity]
            spent, unit = _short(self._fractions.get(identity, 0.0) * budget["amount"]), unit_name(budget["unit"])
            table.add_row(escape(node), f"{number}", escape(name), f"{spent} of {budget['amount']:g} {unit}")
        if len(self.places) > SHOWN_RUNS:
            table.add_row(f"and {len(self.places) - SHOWN_RUNS} more")
        with contextlib.suppress(OSError):
            self._live.update(Group(table, Text(summary)), refresh=True)

    def end(self, identity: str, node: str, outcome: Outcome) -> None:
        """Prints a line that stays about a run that has ended."""
        self.places.pop(identity, None)
        self._progressed(identity, 1.0)
        self._done += 1
        self._failed += outcome.status is Status.FAILED
        self._counted += outcome.counted_seconds / outcome.shared_by  # a batch's seconds are common to its runs
        self._print(f"{self._line(identity)}: on {node}: {', '.join(in_words(outcome))}")

    def end_without_outcome(self, identity: str, what: str, beside: Sequence[str] = ()) -> None:
        """Prints why a run, and those `beside` it, have left their node, unless `what` is empty."""
        for run in (identity, *beside):
            self.places.pop(run, None)
        if what:
            more = f", and {plural(len(beside), 'more run')}" if beside else ""
            self._print(f"{self._line(identity)}{more}: {what}")

    def _progressed(self, identity: str, fraction: float) -> None:
        """Notes how much of a run's budget is used; only work since the command began tells how fast the cluster is."""
        budget = self._entries[identity].budget
        weight = budget["amount"] if self._one_unit else 1.0
        before = self._fractions.get(identity, 0.0)
        self._worked += max(0.0, fraction - before) * weight
        self._fractions[identity] = max(before, fraction)
        self._left[identity] = 1.0 - self._fractions[identity]

    def _summary(self, nodes: int, queued: int) -> str:
        parts = [
            f"{self._done} of {self._total} done", f"{len(self.places)} running on {plural(nodes, 'node')}",
            f"{queued} queued", f"{self._failed} failed", f"{format_seconds(self._counted)} counted",
        ]  # fmt: skip
        totals: dict[str, float] = {}
        for identity, share in self._left.items():
            budget = self._entries[identity].budget
            totals[budget["unit"]] = totals.get(budget["unit"], 0.0) + share * budget["amount"]
        parts += [f"{_short(amount)} {unit_name(unit)} of budget left" for unit, amount in totals.items() if amount]
        weight = sum(totals.values()) if self._one_unit else sum(self._left.values())
        spent = time.monotonic() - self._begun
        if self._worked and spent > 2:
            parts.append(f"about {format_seconds(weight * spent / self._worked)} left")
        return ", ".join(parts)

    def _line(self, identity: str) -> str:
        entry = self._entries[identity]
        return f"[{entry.number}/{self._total}] {identity} {entry.name}"

    def _print(self, text: str) -> None:
        if self._live is None:
            tell(text)
        else:
            with contextlib.suppress(OSError):
                self._console.print(text, markup=False, highlight=False)


def _short(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"
