"""Tables of numbers and categories: scikit-learn's diabetes data, and a user's own CSV or Parquet file."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench.protocol.task import Split
from bench.records.durations import plural
from bench.records.errors import DataError
from bench.tasks.data_sets import DataSet, Loaded, hold_out
from bench.tasks.entry import SPLIT_SEED, TaskEntry
from bench.tasks.image_tasks import perceptron
from bench.tasks.objectives import CLASSIFICATION, REGRESSION
from bench.tasks.options import PerceptronOptions
from bench.tasks.scikit_learn_sets import DIABETES

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MOST_CATEGORIES = 100
"""The most categories that a column may have: more are likely to be names or dates."""
OBJECTIVES = {"classification": CLASSIFICATION, "regression": REGRESSION}
DIGITS_OF_HASH = 16


class TableOptions(PerceptronOptions):
    """`path` is a CSV or Parquet file, absolute or relative to the data root; `target` is the column to predict, and `kind`
    says whether it holds classes or numbers.  The other columns are inputs: numbers are standardised by the training
    examples, and each category becomes a column of zeros and ones.  The test rows are drawn, the same ones for all runs."""

    path: str = Field(min_length=1)
    target: str = Field(min_length=1)
    kind: Literal["classification", "regression"]
    test_fraction: float = Field(default=0.2, gt=0, lt=1)


@cache
def table(path: str, target: str, kind: str, test_fraction: float) -> DataSet:
    """Returns the data set of one file."""
    return DataSet(
        description=f"the table {path}", kind=kind, load=partial(_load, path, target, kind, test_fraction),
        present=lambda root: (root / path).exists(), content=partial(_content, path),
    )  # fmt: skip


def _content(path: str, root: Path) -> str:
    try:
        return hashlib.sha256((root / path).read_bytes()).hexdigest()[:DIGITS_OF_HASH]
    except OSError as error:
        place = (root / path).resolve()
        remedy = "a path is absolute or relative to the data root, --root or OHO_DATA"
        raise DataError(f"{place}: cannot be read ({error.strerror}); {remedy}") from None


def _load(path: str, target: str, kind: str, test_fraction: float, root: Path) -> Loaded:
    place = (root / path).resolve()
    frame = _read(place)
    if target not in frame.columns:
        raise DataError(f"{place}: has no column {target!r}; it has: {', '.join(map(str, frame.columns))}")
    _check_complete(place, frame)
    inputs, names, measured = _inputs(place, frame.drop(columns=target))
    column = frame[target]
    targets, outputs = _classes(place, column) if kind == "classification" else (_numbers(place, column), 1)
    count = max(1, round(test_fraction * len(frame)))
    if count >= len(frame):
        raise DataError(f"{place}: test_fraction={test_fraction:g} of {plural(len(frame), 'row')} leaves none for training")
    splits = hold_out(Split(inputs, targets), count, SPLIT_SEED)
    return Loaded(*splits, place.name, outputs, measured, columns=(*names, target))


def _read(place: Path) -> DataFrame:
    import pandas

    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if place.suffix not in readers:
        raise DataError(f"{place}: a file called .csv or .parquet is expected")
    try:
        return readers[place.suffix](place)
    except ImportError:
        raise DataError(f"{place}: Parquet needs the package pyarrow; install it with: pip install pyarrow") from None
    except Exception as error:  # a damaged file may raise any exception
        raise DataError(f"{place}: cannot be read ({' '.join(str(error).split())})") from None


def _check_complete(place: Path, frame: DataFrame) -> None:
    """Raises `DataError` unless every column has a finite value in every row."""
    missing = frame.isna() | frame.isin([float("inf"), -float("inf")])
    counts = missing.sum()
    if counts.any():
        told = ", ".join(f"{name} ({count})" for name, count in counts[counts > 0].items())
        raise DataError(f"{place}: values are missing or not finite in {told}; fill them in, or leave out rows or columns")


def _inputs(place: Path, frame: DataFrame) -> tuple[Tensor, tuple[str, ...], int]:
    """Returns the columns of numbers followed by those of categories as zeros and ones, in float64, which keeps what is
    close together far from zero; then their names, and how many are numbers."""
    import pandas

    numbers = frame.select_dtypes("number")
    others = frame.drop(columns=numbers.columns).astype(str)
    for name in others:
        if (count := others[name].nunique()) > MOST_CATEGORIES:
            raise DataError(f"{place}: column {name!r} has {count} categories; at most {MOST_CATEGORIES} are allowed")
    columns = pandas.concat([numbers, pandas.get_dummies(others)], axis=1) if len(others.columns) else numbers
    if columns.empty:
        raise DataError(f"{place}: one or more columns besides the target, and rows, are expected")
    return torch.tensor(columns.to_numpy("float64")), tuple(map(str, columns.columns)), len(numbers.columns)


def _classes(place: Path, column: Series) -> tuple[Tensor, int]:
    """Returns the place of each row's class in the sorted classes, (rows,), and the number of classes."""
    import pandas

    places, classes = pandas.factorize(column, sort=True)
    if not 2 <= len(classes) <= len(column) // 2:
        remedy = "give `kind: regression`, or another target"
        raise DataError(f"{place}: column {column.name!r} has {len(classes)} classes in {len(column)} rows; {remedy}")
    return torch.tensor(places, dtype=torch.int64), len(classes)


def _numbers(place: Path, column: Series) -> Tensor:
    """Returns the column's numbers (rows, 1), in float64."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if not is_numeric_dtype(column) or is_bool_dtype(column):
        raise DataError(f"{place}: column {column.name!r} holds no numbers; give `kind: classification`, or another target")
    return torch.tensor(column.to_numpy("float64"))[:, None]


DIABETES_MLP = TaskEntry(
    description="scikit-learn's diabetes data, tanh network 10-32-32-1, 71 held out for validation",
    data=DIABETES,
    defaults=PerceptronOptions(
        validation_size=71, validation_batch_size=71, batch_size=32, width=32, hidden_layers=2, selection_epochs=2
    ),
    model=perceptron,
    objective=REGRESSION,
)
TABLE = TaskEntry(
    description="a CSV or Parquet file of your own, tanh network, a fifth held out for validation",
    data=lambda options: table(options.path, options.target, options.kind, options.test_fraction),
    defaults=TableOptions.model_construct(batch_size=32, validation_batch_size=32, width=32, hidden_layers=2),
    model=perceptron,
    objective=lambda options: OBJECTIVES[options.kind],
)
