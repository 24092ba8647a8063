"""The parts of a data set or a task of your own; splits and `Objective` are in `bench.protocol`."""

from bench.records.errors import DataError
from bench.tasks.data_sets import DataSet, Loaded
from bench.tasks.entry import Facts, TaskEntry
from bench.tasks.objectives import CLASSIFICATION, LANGUAGE, REGRESSION
from bench.tasks.options import Drift, TaskOptions

__all__ = [
    "CLASSIFICATION",
    "LANGUAGE",
    "REGRESSION",
    "DataError",
    "DataSet",
    "Drift",
    "Facts",
    "Loaded",
    "TaskEntry",
    "TaskOptions",
]
