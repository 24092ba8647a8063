"""Pruners end trials early.  All are Optuna's, asked after each validation of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from bench.protocol import Trial

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

WORST = 1e300
"""Stands for a loss that is not finite: percentiles of infinities are not numbers."""


class Pruner(Protocol):
    """Judges the trial in progress by its curve and those of the trials before it."""

    def prunes(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """Whether the trial whose validation losses so far are `curve`, nats per example, should end.

        A function of its arguments alone: called again, or by a pruner rebuilt, it says the same.
        """
        ...


class OptunaPruner:
    """A pruner of Optuna on a study that repeats the search.

    The k-th validation of a trial is step k of the study, and each is followed by a judgement, whether anybody asked for
    it or not: some pruners remember what they judged.  The study is kept from call to call and only extended while the
    arguments go on from where they were; else it is built anew.
    """

    def __init__(self, pruner: BasePruner, seed: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._pruner, self._name = pruner, f"search {seed}"  # Hyperband hashes the name
        self._restart()

    def prunes(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """A curve that is empty goes on, one whose last loss is not finite ends, between them the study judges."""
        if not self._continues(trials, curve):
            self._restart()
        for trial in trials[len(self._ended) :]:
            self._report(trial.curve)
            self._end(trial)
        self._report(curve)
        return bool(curve) and (self._verdict or not math.isfinite(curve[-1]))

    def _restart(self) -> None:
        import optuna

        sampler = optuna.samplers.RandomSampler(seed=0)  # of no parameters
        self._study = optuna.create_study(study_name=self._name, sampler=sampler, pruner=self._pruner)
        self._ended: list[Trial] = []
        self._open()

    def _open(self) -> None:
        self._trial = self._study.ask()
        self._reported: list[float] = []
        self._verdict = False

    def _continues(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """Whether what the study has been told is the beginning of this."""
        ended, reported = len(self._ended), len(self._reported)
        present = trials[ended].curve if len(trials) > ended else curve
        return list(trials[:ended]) == self._ended and list(present[:reported]) == self._reported

    def _report(self, curve: Sequence[float]) -> None:
        """Tells the study what is new of the present trial's curve."""
        for loss in curve[len(self._reported) :]:
            self._reported.append(loss)
            self._trial.report(loss if math.isfinite(loss) else WORST, len(self._reported))
            self._verdict = self._trial.should_prune()

    def _end(self, trial: Trial) -> None:
        from optuna.trial import TrialState

        if trial.status == "finished":
            self._study.tell(self._trial, min(trial.validation_loss, WORST))
        else:
            self._study.tell(self._trial, state=TrialState.PRUNED if trial.status == "pruned" else TrialState.FAIL)
        self._ended.append(trial)
        self._open()


def median(validations: int, seed: int) -> Pruner:
    """Ends a trial whose best loss is above the median of the finished ones' losses after as many validations."""
    from optuna.pruners import MedianPruner

    return OptunaPruner(MedianPruner(n_startup_trials=5), seed)


def successive_halving(validations: int, seed: int) -> Pruner:
    """After 1, 3, 9... validations the best third goes on (Li and others, 2020)."""
    from optuna.pruners import SuccessiveHalvingPruner

    return OptunaPruner(SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), seed)


def hyperband(validations: int, seed: int) -> Pruner:
    """Successive halving in brackets that differ in the first validation judged (Li and others, 2018)."""
    from optuna.pruners import HyperbandPruner

    return OptunaPruner(HyperbandPruner(min_resource=1, max_resource=max(validations, 1), reduction_factor=3), seed)


PRUNERS: dict[str, Callable[[int, int], Pruner]] = {
    "median": median,
    "successive-halving": successive_halving,
    "hyperband": hyperband,
}
"""Each makes a pruner from the number of validations of the longest trial and the seed."""
