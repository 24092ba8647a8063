"""The methods, tasks, data sets and figures that a configuration can name.

A registry holds import strings, `package.module:NAME`, and imports an entry when it is first asked for.  Installed packages
add entries of their own through entry points; users' own files are loaded by `bench.experiment.plugins`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.records.plugins import PluginError, in_words


class Registry(Mapping[str, Any]):
    """A mapping from names to entries: ours, then those of installed packages, which cannot replace ours.

    `ours` maps names to import strings, or is the import string of a mapping of entries, which must be quick to import.
    Installed packages provide theirs as entry points of the `group`.

    Looking up an entry of an installed package raises PluginError if the package cannot be imported.
    """

    def __init__(self, group: str, ours: Mapping[str, str] | str):
        self.group, self._given = group, ours

    @cached_property
    def _ours(self) -> Mapping[str, Any]:
        return imported(self._given) if isinstance(self._given, str) else self._given

    @cached_property
    def installed(self) -> dict[str, EntryPoint]:
        """The entry points of other packages."""
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self._ours}

    def __getitem__(self, name: str) -> Any:
        if name not in self._ours:
            return _loaded(self.installed[name])
        ours = self._ours[name]
        return imported(ours) if isinstance(ours, str) else ours

    def __contains__(self, name: object) -> bool:
        """Returns whether there is such an entry, without importing it."""
        return name in self._ours or name in self.installed

    def __iter__(self) -> Iterator[str]:
        return iter((*self._ours, *self.installed))

    def __len__(self) -> int:
        return len(self._ours) + len(self.installed)


def imported(place: str) -> Any:
    """Returns what `package.module:NAME` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        package = point.dist.name if point.dist else "an installed package"
        told = f"{package}: its entry point {point.name} = {point.value} cannot be loaded ({in_words(error)})"
        raise PluginError(told) from None


METHODS = Registry(
    "oho_bench.methods",
    {
        "fixed": "baselines.training:FIXED",
        "step": "baselines.training:STEP",
        "multistep": "baselines.training:MULTISTEP",
        "exponential": "baselines.training:EXPONENTIAL",
        "cosine": "baselines.training:COSINE",
        "warmup-cosine": "baselines.training:WARMUP_COSINE",
        "one-cycle": "baselines.training:ONE_CYCLE",
        "adam": "baselines.training:ADAM",
        "random-search": "baselines.search:RANDOM_SEARCH",
        "sobol-search": "baselines.search:SOBOL_SEARCH",
        "bayesian-search": "baselines.search:BAYESIAN_SEARCH",
        "tpe-search": "baselines.search:TPE_SEARCH",
        "gp-search": "baselines.search:GP_SEARCH",
        "cma-search": "baselines.search:CMA_SEARCH",
        "population": "baselines.population:POPULATION",
        "muon": "baselines.matrix_optimizers:MUON",
        "soap": "baselines.matrix_optimizers:SOAP",
        "prodigy": "baselines.tuning_free:PRODIGY",
        "d-adaptation": "baselines.tuning_free:D_ADAPTATION",
        "schedule-free-sgd": "baselines.tuning_free:SCHEDULE_FREE_SGD",
        "schedule-free-adamw": "baselines.tuning_free:SCHEDULE_FREE_ADAMW",
        "dog": "baselines.tuning_free:DOG",
        "ldog": "baselines.tuning_free:LDOG",
        "dowg": "baselines.tuning_free:DOWG",
        "mechanic": "baselines.tuning_free:MECHANIC",
        "gdtuo": "baselines.one_step:GDTUO",
        "hypergradient-descent": "baselines.one_step:HYPERGRADIENT_DESCENT",
        "hdm": "baselines.one_step:HDM",
        "osgm": "baselines.one_step:OSGM",
        "meta-optimize": "baselines.one_step:META_OPTIMIZE",
        "oho-global": "bench.online.methods:GLOBAL",
        "oho-layerwise": "bench.online.methods:LAYERWISE",
        "oho-full": "bench.online.methods:FULL",
        "oho-default": "bench.online.methods:DEFAULT",
        "oho-averaged": "bench.online.methods:AVERAGED",
        "oho-published": "bench.online.methods:PUBLISHED",
        "transplant": "bench.online.transplant:TRANSPLANT",
    },
)

TASKS = Registry(
    "oho_bench.tasks",
    {
        "digits-mlp": "bench.tasks.image_tasks:DIGITS_MLP",
        "mnist-mlp": "bench.tasks.image_tasks:MNIST_MLP",
        "mnist-mlp-dropout": "bench.tasks.image_tasks:MNIST_MLP_DROPOUT",
        "fashion-mnist-mlp": "bench.tasks.image_tasks:FASHION_MNIST_MLP",
        "fashion-cnn": "bench.tasks.image_tasks:FASHION_CNN",
        "cifar10-cnn": "bench.tasks.image_tasks:CIFAR10_CNN",
        "cifar10-resnet18": "bench.tasks.image_tasks:CIFAR10_RESNET18",
        "cifar10-resnet50": "bench.tasks.image_tasks:CIFAR10_RESNET50",
        "diabetes-mlp": "bench.tasks.table_tasks:DIABETES_MLP",
        "shakespeare-transformer": "bench.tasks.text_tasks:SHAKESPEARE_TRANSFORMER",
        "table": "bench.tasks.table_tasks:TABLE",
        "image-folder": "bench.tasks.image_folder:IMAGE_FOLDER",
    },
)

DATA_SETS = Registry(
    "oho_bench.data",
    {
        "digits": "bench.tasks.scikit_learn_sets:DIGITS",
        "diabetes": "bench.tasks.scikit_learn_sets:DIABETES",
        "mnist": "bench.tasks.torchvision_sets:MNIST",
        "fashion-mnist": "bench.tasks.torchvision_sets:FASHION_MNIST",
        "cifar10": "bench.tasks.torchvision_sets:CIFAR10",
        "shakespeare": "bench.tasks.text_tasks:TINY_SHAKESPEARE",
    },
)

FIGURES = Registry("oho_bench.figures", "reports.registry:FIGURES")

SINKS = Registry(
    "oho_bench.sinks",
    {
        "wandb": "bench.tracking.sinks:open_wandb",
        "trackio": "bench.tracking.trackio_sink:open_trackio",
        "tensorboard": "bench.tracking.tensorboard_sink:open_tensorboard",
    },
)
"""Trackers: functions that open a `bench.tracking.sink.Sink`.  They affect no result, so that no spec names them."""


@dataclass(frozen=True)
class Kind:
    """A kind of entry: its registry, its class, and the mapping that a plug-in defines for it."""

    registry: Registry
    entry: str
    mapping: str

    @property
    def entry_class(self) -> type:
        """The class of the entries."""
        return imported(self.entry)


KINDS: dict[str, Kind] = {
    "method": Kind(METHODS, "bench.protocol:MethodEntry", "METHODS"),
    "task": Kind(TASKS, "bench.tasks.entry:TaskEntry", "TASKS"),
    "data set": Kind(DATA_SETS, "bench.tasks.data_sets:DataSet", "DATA_SETS"),
    "figure": Kind(FIGURES, "reports.registry:FigureEntry", "FIGURES"),
}
