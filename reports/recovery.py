"""What a shock costs a run beside its twin: the run of the same method and seed that was spared it.

    symbol  name        unit              equation
    L, L'   losses      the task's        validation loss of the present model, of the run and of its twin
    t0      shock       epochs            where the shock is
    t1      recovery    epochs            first evaluation with L <= 1.05 L' after the first one with more
    R       time        epochs            t1 - t0; 0 where L is never above 1.05 L', infinite where it stays there
    E       excess      loss · epochs     integral of max(0, L - L') from t0 to t1, or to the end: then it is a lower bound
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WITHIN = 0.05


class Recovery(NamedTuple):
    """How one run recovers: epochs until then, infinite where it does not, and excess in the loss' unit · epochs."""

    epochs: float
    excess: float


def recovery(epochs: np.ndarray, losses: np.ndarray, twin: np.ndarray, shock: float) -> Recovery:
    """Compares the `losses` (n,) of a run with those of its `twin` (n,) at `epochs` (n,) from the shock on.

    NaN is infinitely bad; the losses of a run that ended before its twin are NaN from there on.
    """
    losses, twin = (np.where(np.isnan(values), np.inf, values) for values in (losses, twin))
    outside = losses > (1 + WITHIN) * twin
    if not outside.any():
        return Recovery(0.0, 0.0)
    first = int(np.argmax(outside))
    back = np.flatnonzero(~outside[first:])
    last = first + int(back[0]) if len(back) else len(epochs) - 1
    with np.errstate(invalid="ignore"):  # two infinities do not differ
        gap = np.nan_to_num(np.maximum(losses - twin, 0), nan=0.0, posinf=np.inf)
    excess = np.trapezoid(gap[: last + 1], epochs[: last + 1])
    return Recovery(float(epochs[last] - shock) if len(back) else np.inf, float(excess))
