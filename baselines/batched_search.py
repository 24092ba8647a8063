"""Searches side by side: the trials that they have in progress are trained as one batch.

Each search proposes, prunes and ends its trials by itself, as if it were alone.  Their trials may be at different steps,
since one that diverges or is pruned ends early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baselines import batched_training
from baselines.batched_training import TrainingBatch
from bench.protocol import Batching, Ledger, Stacked
from bench.protocol.batched import ProgressAfter


class SearchBatch:
    """Searches of `baselines.search`, whose trials are trainings with one kind of optimizer."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked = states, stacked
        self._trials = TrainingBatch([state.inner for state in states], stacked)

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Updates all trials or, if some have ended, begins the ones that follow them."""
        with ledger.account("search"):
            ended = [index for index, state in enumerate(self.states) if state.has_ended()]
            for index in ended:
                state = self.states[index]
                state.propose()
                self._stacked.replace(index, state.model)
            if ended:
                self._trials = TrainingBatch([state.inner for state in self.states], self._stacked)
                return
        before = [state.inner.step for state in self.states]
        self._trials.advance(steps=steps, progress=progress, ledger=ledger)
        for state, step in zip(self.states, before, strict=True):
            state.follow(state.inner.step - step, ledger)


def _repeats(batching: Batching) -> bool:
    return batching is batched_training.BATCHING


BATCHING = Batching(SearchBatch, lambda options: {}, _repeats)
