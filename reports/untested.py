"""Searches of which nothing can be said, because their model of the space had too few trials to propose anything."""

from __future__ import annotations

import numpy as np
import pandas as pd

TIMES = 3
"""A search with a model of the space is tested once it has made so many times its random starts."""
RULE = f"fewer trials than {TIMES} times the random ones that begin it"


def too_few_trials(trials: pd.Series, random_starts: pd.Series) -> pd.Series:
    """Returns which runs of a search with a model made too few trials for the model to matter."""
    return trials.astype(float) < TIMES * random_starts.fillna(0).astype(float)


def is_untested(runs: pd.DataFrame) -> bool:
    """Returns whether that is so in more than half of a method's runs."""
    return bool(np.mean(too_few_trials(runs["trials"], runs["random_starts"])) > 0.5)


def untested_labels(runs: pd.DataFrame) -> list[str]:
    """Returns the labels of which it is so."""
    return [str(label) for label, own in runs.groupby("label", sort=True) if is_untested(own)]
