"""Searchers differ in one function, `propose`: it returns the next point of a space, given the trials that have ended.

All minimise a trial's best validation loss.  A searcher keeps no state: its proposal is a function of space, names, seed
and trials, so a searcher that is rebuilt from the trials of an interrupted run continues as if nothing had happened.
Proposal 0 of every searcher is draw 0 of the seed, where the other methods of that seed start.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from bench.protocol import Dimension, Space, Trial, draw, stream_seed

Point = dict[str, float]


class Searcher(Protocol):
    """A source of points of a space."""

    STARTS: ClassVar[int] = 0
    """How many points are drawn at random before a model of the earlier trials proposes any; 0 where there is no model."""

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Returns the next point to try, with one value per name; `trials[i].hyper` is proposal i."""
        ...


class RandomSearcher(Searcher):
    """A searcher that draws independently from the space's laws (Bergstra and Bengio, 2012)."""

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        self._draw = partial(draw, space, list(_laws(space, names)), seed)

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Returns draw number n of the seed, where n is the number of trials."""
        return self._draw(len(trials))


class SobolSearcher(Searcher):
    """A searcher that follows draw 0 with a scrambled Sobol sequence (Owen, 1998) in the quantiles of the space's laws."""

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        from scipy.stats import qmc

        self._laws = _laws(space, names)
        self._start = draw(space, names, seed)
        self._sequence = partial(qmc.Sobol, len(self._laws), seed=stream_seed(seed, "search"))

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Returns point n − 1 of the sequence as proposal n."""
        if not trials:
            return dict(self._start)
        sequence = self._sequence()
        if len(trials) > 1:  # SciPy cannot fast-forward by 0
            sequence.fast_forward(len(trials) - 1)
        (fractions,) = sequence.random()
        return _quantiles(self._laws, fractions)


class GaussianProcessSearcher(Searcher):
    """scikit-optimize's Gaussian process with expected improvement and five random starts: the published baseline.

    Every setting that is not named here is as in `gp_minimize`.  The process is given `capped_losses`.
    """

    STARTS = 5
    NOISE = "gaussian"
    """Fitted: the published 0.01 of the losses' variance left one of 16 seeds stuck at an edge of a smooth function."""

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        import skopt

        self._laws, self._seed, self._libraries = _laws(space, names), seed, _linear_algebra()
        self._draw = partial(draw, space, names, seed)
        # A law of one whole number is no dimension to scikit-optimize.
        self._varied = {name: law for name, law in self._laws.items() if law.bounds[0] < law.bounds[1]}
        self._dimensions = []
        for law in self._varied.values():
            kind = skopt.space.Integer if law.integer else skopt.space.Real
            self._dimensions.append(kind(*law.bounds, prior="log-uniform" if law.log else "uniform"))

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Returns the point of highest expected improvement."""
        from skopt import Optimizer
        from skopt.utils import cook_estimator

        if len(trials) < self.STARTS or not self._varied:
            return self._draw(len(trials))
        seed = _proposal_seed(self._seed, trials)
        points = [list(_coordinates(self._varied, trial.hyper).values()) for trial in trials]
        with warnings.catch_warnings(), self._libraries.limit(limits=1):
            warnings.simplefilter("ignore")  # warnings of repeated points and of fits that end on a bound
            process = cook_estimator("GP", space=self._dimensions, noise=self.NOISE, random_state=seed)
            optimizer = Optimizer(self._dimensions, process, n_initial_points=0, acq_func="EI", random_state=seed)
            optimizer.tell(points, capped_losses(trials))
            proposed = optimizer.ask()
        return self._draw(0) | _point(self._varied, dict(zip(self._varied, proposed, strict=True)))


class OptunaSearcher(Searcher):
    """An Optuna sampler with its own defaults, except that its ten random starts are draws of the seed.

    `sampler` is TPESampler or GPSampler.  The first also models pruned trials, by where their curves end; the second leaves
    them out, and so starts at random until ten trials were not pruned.  The first is given losses as they are, which it
    ranks, and the second `capped_losses`, since it fits their values.
    """

    STARTS = 10

    def __init__(self, space: Space, names: Sequence[str], seed: int, *, sampler: str):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._laws, self._seed, self._libraries = _laws(space, names), seed, _linear_algebra()
        self._draw = partial(draw, space, names, seed)
        self._sampler = getattr(optuna.samplers, sampler)
        self._models_pruned = sampler == "TPESampler"
        self._losses = _finite_losses if sampler == "TPESampler" else capped_losses
        self._distributions: dict[str, Any] = {}
        for name, law in self._laws.items():
            kind: Any = optuna.distributions.IntDistribution if law.integer else optuna.distributions.FloatDistribution
            self._distributions[name] = kind(*law.bounds, log=law.log)
        # This proposal is thrown away: it makes the imports of Optuna's first fit part of the set-up.
        self.propose([Trial(self._draw(n), float(n), 1, "finished") for n in range(self.STARTS)])

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Returns the point that a study of these trials asks for."""
        import optuna

        modelled = len(trials) if self._models_pruned else sum(not _ended_early(trial) for trial in trials)
        if modelled < self.STARTS:
            return self._draw(len(trials))
        study = optuna.create_study(sampler=self._sampler(seed=_proposal_seed(self._seed, trials)))
        study.add_trials(
            optuna.trial.create_trial(
                params=_coordinates(self._laws, trial.hyper), distributions=self._distributions, **_outcome(trial, loss)
            )
            for trial, loss in zip(trials, self._losses(trials), strict=True)
        )
        with self._libraries.limit(limits=1):
            return _point(self._laws, study.ask(self._distributions).params)


class CmaEsSearcher(Searcher):
    """Covariance matrix adaptation (Hansen, 2016) in the quantiles of the space's laws, started in the middle of the cube.

    Proposal 0, which is draw 0, belongs to no generation.  A strategy that has converged is followed by a new one.
    """

    SIGMA = 0.25
    """The initial standard deviation: the cube is four of these wide."""

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        import cmaes  # noqa: F401  makes the import part of the set-up

        self._laws, self._seed = _laws(space, names), seed
        if len(self._laws) < 2:
            (name,) = self._laws
            raise ValueError(f"CMA-ES needs at least two open hyperparameters but has one, {name}: leave another one open")
        self._start = draw(space, names, seed)

    def propose(self, trials: Sequence[Trial]) -> Point:
        """Replays the strategy's generations so far and returns its next sample."""
        if not trials:
            return dict(self._start)
        strategy, told = self._strategy(1), 1
        while told + strategy.population_size <= len(trials):
            generation = [strategy.ask() for _ in range(strategy.population_size)]
            told += len(generation)
            losses = _finite_losses(trials[:told])[-len(generation) :]
            strategy.tell(list(zip(generation, losses, strict=True)))
            if strategy.should_stop():
                strategy = self._strategy(told)
        for _ in trials[told:]:
            strategy.ask()
        return _quantiles(self._laws, strategy.ask())

    def _strategy(self, counter: int) -> Any:
        """Returns a new strategy, whose first sample is proposal `counter`."""
        import cmaes
        import numpy as np

        middle, cube = np.full(len(self._laws), 0.5), np.array([[0.0, 1.0]] * len(self._laws))
        return cmaes.CMA(middle, self.SIGMA, cube, seed=stream_seed(self._seed, "search", counter) % 2**32)


def _laws(space: Space, names: Sequence[str]) -> dict[str, Dimension]:
    if not names:
        raise ValueError("nothing is left open to search: give one or more of the hyperparameters the value null")
    if missing := space.missing(names):
        known = ", ".join(space.hyperparameters)
        raise ValueError(f"space {space.name!r} has no law for {', '.join(missing)}; it has: {known}")
    return {name: space.hyperparameters[name] for name in names}


def _linear_algebra() -> Any:
    """Returns the controller of NumPy's and SciPy's threads, to hold them to one.

    On matrices this small, more threads only cost time, and a lot of it beside other runs.
    """
    import scipy.linalg  # noqa: F401  the controller finds only libraries that are loaded
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _proposal_seed(seed: int, trials: Sequence[Trial]) -> int:
    return stream_seed(seed, "search", len(trials)) % 2**32


def _finite_losses(trials: Sequence[Trial]) -> list[float]:
    """Returns the best validation losses; a missing one is the worst of the others plus one, or 11 if there are none."""
    losses = [trial.validation_loss for trial in trials]
    substitute = max(filter(math.isfinite, losses), default=10.0) + 1.0
    return [loss if math.isfinite(loss) else substitute for loss in losses]


def capped_losses(trials: Sequence[Trial]) -> list[float]:
    """Returns the losses as a model that fits their values is given them: `_finite_losses`, none of them above a cap.

    The cap is m + 3 (m − l), where m is the median and l the lowest of the finite losses.  Otherwise one trial that reached
    1e20 before it diverged would make all good trials look alike.  Where m is l, the median of the higher ones takes its
    place; where none is higher, there is no cap.
    """
    losses = _finite_losses(trials)
    finite = [trial.validation_loss for trial in trials if math.isfinite(trial.validation_loss)]
    lowest = min(finite, default=math.inf)
    higher = [loss for loss in finite if loss > lowest]
    if not higher:
        return losses
    middle = statistics.median_low(finite)
    if middle == lowest:
        middle = statistics.median_low(higher)
    cap = middle + 3 * (middle - lowest)
    return [min(loss, cap) for loss in losses]


def _ended_early(trial: Trial) -> bool:
    """Returns whether a pruner ended the trial while its curve was finite."""
    return trial.status == "pruned" and len(trial.curve) > 0 and all(map(math.isfinite, trial.curve))


def _outcome(trial: Trial, loss: float) -> dict[str, Any]:
    """Returns the trial's end in the terms of Optuna's `create_trial`."""
    from optuna.trial import TrialState

    if _ended_early(trial):
        return {"state": TrialState.PRUNED, "intermediate_values": dict(enumerate(trial.curve, start=1))}
    return {"value": loss}


def _coordinates(laws: Mapping[str, Dimension], point: Mapping[str, float]) -> dict[str, float]:
    """Returns the point in the laws' coordinates, within their bounds."""
    return {name: law.coordinate(point[name]) for name, law in laws.items()}


def _point(laws: Mapping[str, Dimension], coordinates: Mapping[str, float]) -> Point:
    """Inverts `_coordinates`; returns plain numbers."""
    point = {}
    for name, law in laws.items():
        low, high = law.bounds
        coordinate = min(max(coordinates[name], low), high)
        point[name] = law.value(int(coordinate) if law.integer else float(coordinate))
    return point


def _quantiles(laws: Mapping[str, Dimension], fractions: Iterable[float]) -> Point:
    """Returns the laws' quantiles at a point of the unit cube."""
    return {name: law.at(float(fraction)) for (name, law), fraction in zip(laws.items(), fractions, strict=True)}


SEARCHERS: dict[str, Callable[[Space, Sequence[str], int], Searcher]] = {
    "random": RandomSearcher,
    "sobol": SobolSearcher,
    "gaussian-process": GaussianProcessSearcher,
    "tpe": partial(OptunaSearcher, sampler="TPESampler"),
    "optuna-gp": partial(OptunaSearcher, sampler="GPSampler"),
    "cma-es": CmaEsSearcher,
}
