"""What a shock costs a run beside its twin: the run of the same method and seed that was spared it.

    symbol  name        unit              equation
    L, L'   losses      the task's        validation loss of the present model, of the run and of its twin
    t0      shock       epochs            where the shock is
    T       end         epochs            the twin's last evaluation
    t1      recovery    epochs            first evaluation from which on L <= 1.05 L' for good, if that is for 3 or more
    R       time        epochs            t1 - t0; 0 where L is never above 1.05 L', infinite where there is no t1
    E       excess      loss · epochs     integral of max(0, L - L') from t0 to T

A run that touches the band and leaves it again has not recovered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WITHIN = 0.05
FOR_GOOD = 3
"""Evaluations, the last ones of a run, that must all lie within the band: at the very end, one could be luck."""


class Recovery(NamedTuple):
    """How one run recovers: epochs until then, infinite where it does not, and excess in the loss' unit · epochs."""

    epochs: float
    excess: float


def recovery(epochs: np.ndarray, losses: np.ndarray, twin: np.ndarray, shock: float) -> Recovery:
    """Compares the `losses` (n,) of a run with those of its `twin` (n,) at `epochs` (n,) from the shock on.

    NaN is infinitely bad; the losses of a run that ended before its twin are NaN from there on.
    """
    losses, twin = (np.where(np.isnan(values), np.inf, values) for values in (losses, twin))
    with np.errstate(invalid="ignore"):  # two infinities do not differ
        gap = np.nan_to_num(np.maximum(losses - twin, 0), nan=0.0, posinf=np.inf)
    excess = float(np.trapezoid(gap, epochs))
    outside = np.flatnonzero(losses > (1 + WITHIN) * twin)
    if not len(outside):
        return Recovery(0.0, excess)
    back = outside[-1] + 1
    return Recovery(float(epochs[back] - shock) if len(epochs) - back >= FOR_GOOD else np.inf, excess)
