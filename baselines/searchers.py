"""Searchers behind one ask/tell pair; they differ in `ask` alone.  All minimise the best validation loss of a trial."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

from bench.protocol import Space, draw, stream_seed

Point = dict[str, float]


class Searcher(Protocol):
    """Proposes points of a space and learns from what became of them."""

    def ask(self) -> Point:
        """The next point to try: one value a name."""
        ...

    def tell(self, point: Point, loss: float) -> None:
        """The validation loss (nats per example) reached at `point`; infinite for a trial that diverged at once."""
        ...


class RandomSearcher:
    """Independent draws from the space's laws (Bergstra and Bengio, 2012)."""

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        self._space, self._names, self._seed, self._asked = space, names, seed, 0

    def ask(self) -> Point:
        """Draw number n of the seed; draw 0 is the point the other methods of this seed start from."""
        point = draw(self._space, self._names, self._seed, self._asked)
        self._asked += 1
        return point

    def tell(self, point: Point, loss: float) -> None:
        """Learns nothing."""


class GaussianProcessSearcher:
    """scikit-optimize's Gaussian process with expected improvement, five random starts: the published baseline."""

    INITIAL_POINTS = 5

    def __init__(self, space: Space, names: Sequence[str], seed: int):
        from skopt import Optimizer
        from skopt.space import Integer, Real

        self._laws = {name: space.hyperparameters[name] for name in names}
        dimensions = []
        for name, law in self._laws.items():
            kind = Integer if law.integer else Real
            dimensions.append(kind(law.low, law.high, prior="log-uniform" if law.log else "uniform", name=name))
        self._optimizer = Optimizer(
            dimensions,
            base_estimator="GP",
            acq_func="EI",
            n_initial_points=self.INITIAL_POINTS,
            random_state=stream_seed(seed, "search") % 2**32,
        )
        self._worst = -math.inf

    def ask(self) -> Point:
        """The point of highest expected improvement."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = self._optimizer.ask()
        asked = zip(self._laws.items(), values, strict=True)
        return {name: law.value(int(value) if law.integer else float(value)) for (name, law), value in asked}

    def tell(self, point: Point, loss: float) -> None:
        """A diverged trial is told as the worst finite loss so far plus one: the process takes no infinities."""
        if math.isfinite(loss):
            self._worst = max(self._worst, loss)
        else:
            loss = (self._worst if math.isfinite(self._worst) else 10.0) + 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer.tell([law.coordinate(point[name]) for name, law in self._laws.items()], loss)


SEARCHERS: dict[str, Callable[[Space, Sequence[str], int], Searcher]] = {
    "random": RandomSearcher,
    "gaussian-process": GaussianProcessSearcher,
}
