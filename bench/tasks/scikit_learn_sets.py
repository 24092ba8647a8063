"""Data sets that ship with scikit-learn and need no download."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch

from bench.protocol.task import Split
from bench.tasks.data_sets import DataSet, Loaded, hold_out


def _digits(root: Path) -> Loaded:
    """Reads scikit-learn's own file: importing the library takes longer than a short run."""
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    raw = torch.from_numpy(np.loadtxt(str(path), dtype=np.float32, delimiter=","))
    whole = Split(raw[:, :-1] / 16, raw[:, -1].long())
    return Loaded(*hold_out(whole, 360, seed=0), "digits")


def _diabetes(root: Path) -> Loaded:
    from sklearn.datasets import load_diabetes

    raw = load_diabetes(scaled=False)
    inputs = torch.tensor(raw.data, dtype=torch.float32)
    whole = Split(inputs, torch.tensor(raw.target, dtype=torch.float32)[:, None])
    return Loaded(*hold_out(whole, 88, seed=0), "diabetes", measured=inputs.shape[1])


DIGITS = DataSet(
    description="1,797 8x8 images of digits, shipped with scikit-learn",
    images=True,
    training_examples=1_437,
    load=_digits,
)
DIABETES = DataSet(
    description="442 patients, ten measurements and the progress of diabetes a year later, shipped with scikit-learn",
    kind="regression",
    training_examples=354,
    load=_diabetes,
)
