"""Pruners end trials early.  All are Optuna's and are asked after each validation of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from bench.protocol import Trial

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

WORST = 1e300
"""Stands for a loss that is not finite, because percentiles of infinities are not numbers."""


class Pruner(Protocol):
    """A judge of the trial in progress, by its curve and by those of earlier trials."""

    def prunes(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """Returns whether the trial with the validation losses `curve` so far, in the task's unit, should end.

        The answer is a function of the arguments alone: a second call, or a rebuilt pruner, gives the same.
        """
        ...


class OptunaPruner:
    """An Optuna pruner with a study that repeats the search.

    The k-th validation of a trial is step k of the study.  The pruner is asked for a verdict after every step, even if
    nobody needs it, because some pruners remember what they judged.  The study is kept between calls and extended as long
    as the new arguments continue the previous ones; otherwise it is rebuilt.
    """

    def __init__(self, pruner: BasePruner, seed: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._pruner, self._name = pruner, f"search {seed}"  # Hyperband hashes the name
        self._restart()

    def prunes(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """Never ends a trial with an empty curve, always one whose last loss is not finite; otherwise the study decides."""
        if not self._continues(trials, curve):
            self._restart()
        for trial in trials[len(self._ended) :]:
            self._report(trial.curve)
            self._end(trial)
        self._report(curve)
        return bool(curve) and (self._verdict or not math.isfinite(curve[-1]))

    def _restart(self) -> None:
        import optuna

        sampler = optuna.samplers.RandomSampler(seed=0)  # never asked: the study has no parameters
        self._study = optuna.create_study(study_name=self._name, sampler=sampler, pruner=self._pruner)
        self._ended: list[Trial] = []
        self._open()

    def _open(self) -> None:
        self._trial = self._study.ask()
        self._reported: list[float] = []
        self._verdict = False

    def _continues(self, trials: Sequence[Trial], curve: Sequence[float]) -> bool:
        """Returns whether the arguments continue what has been reported to the study."""
        ended, reported = len(self._ended), len(self._reported)
        present = trials[ended].curve if len(trials) > ended else curve
        return list(trials[:ended]) == self._ended and list(present[:reported]) == self._reported

    def _report(self, curve: Sequence[float]) -> None:
        """Reports the new part of the current trial's curve to the study."""
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


def median(validations: int | None, seed: int) -> Pruner:
    """Ends a trial whose best loss is above the median of the finished trials' losses after as many validations."""
    from optuna.pruners import MedianPruner

    return OptunaPruner(MedianPruner(n_startup_trials=5), seed)


def successive_halving(validations: int | None, seed: int) -> Pruner:
    """Lets the best third continue after 1, 3, 9... validations (Li et al., 2020)."""
    from optuna.pruners import SuccessiveHalvingPruner

    return OptunaPruner(SuccessiveHalvingPruner(min_resource=1, reduction_factor=3), seed)


def hyperband(validations: int | None, seed: int) -> Pruner:
    """Runs successive halving in brackets that differ in the first validation judged (Li et al., 2018).

    If the number of validations is not known, it is that of the first trial that finishes, and none is pruned before.
    """
    from optuna.pruners import HyperbandPruner

    most = "auto" if validations is None else max(validations, 1)
    return OptunaPruner(HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3), seed)


PRUNERS: dict[str, Callable[[int | None, int], Pruner]] = {
    "median": median,
    "successive-halving": successive_halving,
    "hyperband": hyperband,
}
"""Maps each name to a function that makes a pruner from the longest trial's number of validations, or None if that is not
known, and the seed."""
