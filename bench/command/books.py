"""Notes, counts and shows what becomes of a command's runs that other processes make, on nodes or as jobs of a queue."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.command.crashed_runs import book
from bench.command.handover import Journal
from bench.command.nodes_display import NodesDisplay
from bench.command.planning import Planned
from bench.command.remote_run import Result
from bench.command.scheduling import MOST_DEATHS, End, Verdict
from bench.command.store import Mirror
from bench.records import Outcome, Status, read_outcome
from bench.records.progress import used_in

log = logging.getLogger("oho-bench")


@dataclass
class Books:
    """What is known of a command's runs, `items` by their ids; `counts` has the statuses of those that have ended."""

    items: Mapping[str, Planned]
    mirror: Mirror
    journal: Journal
    display: NodesDisplay
    counts: Counter[Status] = field(default_factory=Counter)

    def started(self, run: str, node: str) -> None:
        """Notes that a run begins on a node, or continues there."""
        self.display.start(run, node, self._used(run))

    def look(self, nodes: int, queued: int) -> None:
        """Fetches and shows, from time to time, how far the runs are that nodes work on."""
        self.mirror.look(self.display.places)
        self.display.look(nodes, queued, self._used)

    def saved(self, run: str) -> float:
        """Returns how much of a run has been saved."""
        self.mirror.fetch(run)
        return self._used(run)

    def written(self, run: str) -> Outcome | None:
        """Returns the outcome that has been written of a run since it was planned, or None if there is none."""
        self.mirror.fetch(run)
        outcome = read_outcome(self.mirror.root / run)
        return None if repr(outcome) == repr(self.items[run].outcome) else outcome

    def ended(self, runs: Sequence[str]) -> dict[str, Outcome]:
        """Returns the outcomes of those runs that have ended since they were planned, not only stopped."""
        found = {run: self.written(run) for run in runs}
        return {run: outcome for run, outcome in found.items() if outcome and outcome.status is not Status.INTERRUPTED}

    def heard(self, runs: Sequence[str], node: str, result: Result, verdict: Verdict) -> None:
        """Notes what became of a run, or of the runs of a batch, on a node, and what follows."""
        for line in result.said:
            log.warning("%s: %s", node, line)
        for run in runs:
            self.mirror.fetch(run)
        outcomes = dict(result.outcomes)
        if verdict is Verdict.FAILED and (outcome := self._failed(runs[0], node, result.reason)) is not None:
            outcomes[runs[0]] = outcome
        for run, outcome in outcomes.items():
            self.journal.note("tried", run)
            self.counts[outcome.status] += 1
            self.display.end(run, node, outcome)
        if left := [run for run in runs if run not in outcomes]:
            if verdict in (Verdict.ENDED, Verdict.FAILED, Verdict.LEFT):
                self.journal.note("tried", left[0])
            words = WORDS[result.end, verdict].format(node, result.reason)
            self.display.end_without_outcome(left[0], words, left[1:])

    def _used(self, run: str) -> float:
        return used_in(self.mirror.root / run)

    def _failed(self, run: str, node: str, reason: str) -> Outcome | None:
        """Writes that a run has failed, unless another runner has it."""
        item = self.items[run]
        why = f"its process died {MOST_DEATHS} times without progress, last on {node} ({reason})"
        outcome = book(item.spec, self.mirror.root / run, why, item.since)
        self.mirror.send(run)
        return outcome


WORDS = {
    (End.MADE, Verdict.ENDED): "another runner has ended it",
    (End.MADE, Verdict.APART): "",
    (End.TAKEN, Verdict.LEFT): "another runner has it",
    (End.TAKEN, Verdict.AGAIN): "",
    (End.NOT_BEGUN, Verdict.AGAIN): "",
    (End.STOPPED, Verdict.AGAIN): "stopped on {0}",
    (End.STOPPED, Verdict.LEFT): "cancelled",
    (End.DIED, Verdict.AGAIN): "died on {0} ({1}); it continues from its checkpoint",
    (End.DIED, Verdict.APART): "died on {0} ({1}); each continues alone from its checkpoint",
    (End.DIED, Verdict.FAILED): "died on {0} ({1}); another runner has it",
    (End.REFUSED, Verdict.AGAIN): "{0} {1}; runs that need it go to other nodes",
    (End.REFUSED, Verdict.LEFT): "{0} {1}",
    (End.NODE_REFUSED, Verdict.AGAIN): "{0} {1}; its runs go to other nodes",
    (End.NODE_REFUSED, Verdict.LEFT): "{0} {1}",
}
"""What is printed of runs that left their node without an outcome."""
