"""The methods by name: description, label on figures, options class, constructor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from baselines import training, tuning_free
from baselines.population import Population, PopulationOptions
from baselines.search import Search, SearchOptions
from baselines.training import ScheduledOptions, Training
from baselines.tuning_free import missing_package
from bench.online import methods as online
from bench.online.methods import Online
from bench.online.transplant import Transplant, TransplantOptions
from bench.protocol import Method, Options, Space

__all__ = ["METHODS", "OPTIMIZERS", "MethodEntry", "build_method", "default_label", "missing_package", "repeatable"]


@dataclass(frozen=True)
class MethodEntry:
    """`build(options, space)` makes the method; of one `over` another, `build(options, over)`."""

    description: str
    label: str
    options: type[Options]
    build: Callable[..., Method]

    @property
    def is_over(self) -> bool:
        """Whether the method repeats another one, its option `over`."""
        return "over" in self.options.model_fields


OPTIMIZER_LABELS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "AdamW"}


def _searches(name: str, description: str, label: str) -> MethodEntry:
    return MethodEntry(description, label, SearchOptions, partial(Search, searcher=name))


METHODS: dict[str, MethodEntry] = {
    "fixed": MethodEntry("constant learning rate, SGD unless told otherwise", "Fixed", training.FixedOptions, Training),
    "step": MethodEntry("learning rate times gamma every step_size", "Step", training.StepOptions, Training),
    "multistep": MethodEntry(
        "learning rate times gamma at each milestone", "Multistep", training.MultistepOptions, Training
    ),
    "exponential": MethodEntry(
        "learning rate times gamma every step or epoch", "Exponential", training.ExponentialOptions, Training
    ),
    "cosine": MethodEntry("learning rate along half a cosine to 0", "Cosine", training.CosineOptions, Training),
    "warmup-cosine": MethodEntry(
        "the same after a linear warm-up", "Warm-up and cosine", training.WarmupCosineOptions, Training
    ),
    "one-cycle": MethodEntry("up and down once", "One-cycle", training.OneCycleOptions, Training),
    "adam": MethodEntry("Adam at a constant learning rate", "Adam", training.AdamOptions, Training),
    "random-search": _searches("random", "restarts at points drawn from the space", "Random search"),
    "sobol-search": _searches("sobol", "restarts at the points of a scrambled Sobol sequence", "Sobol search"),
    "bayesian-search": _searches(
        "gaussian-process",
        "restarts by scikit-optimize's Gaussian process with expected improvement (the paper's)",
        "Bayesian optimization",
    ),
    "tpe-search": _searches("tpe", "restarts by Optuna's tree-structured Parzen estimator", "TPE"),
    "gp-search": _searches("optuna-gp", "restarts by Optuna's Gaussian process", "Optuna GP"),
    "cma-search": _searches("cma-es", "restarts by CMA-ES", "CMA-ES"),
    "population": MethodEntry(
        "population-based training: the worst copy the best and vary", "Population", PopulationOptions, Population
    ),
    **{
        name: MethodEntry(entry.description, entry.label, entry.options, Training)
        for name, entry in tuning_free.METHODS.items()
    },
    "oho-global": MethodEntry(
        "exact online hypergradients, one learning rate and L2 coefficient",
        "Global OHO",
        online.OnlineOptions,
        partial(Online, optimize=online.published_meta),
    ),
    "oho-layerwise": MethodEntry(
        "one of each for the weights and the biases of every group of layers",
        "Layer-wise OHO",
        online.LayerwiseOptions,
        partial(Online, optimize=online.published_meta),
    ),
    "oho-full": MethodEntry(
        "one of each for every parameter tensor",
        "Full OHO",
        online.FullOptions,
        partial(Online, optimize=online.published_meta),
    ),
    "oho-default": MethodEntry(
        "the defaults of the library: nothing to choose",
        "Default OHO",
        online.InitialOptions,
        partial(Online, optimize=online.defaults),
    ),
    "oho-published": MethodEntry(
        "the published recursion, defect by defect",
        "Published OHO",
        online.PublishedOptions,
        partial(Online, optimize=online.published_recursion),
    ),
    "transplant": MethodEntry(
        "SGD along the schedule that an OHO run of another seed found, kept, shuffled in time, or averaged",
        "Transplant",
        TransplantOptions,
        Transplant,
    ),
}


def repeatable(name: str) -> list[str]:
    """Names of the methods that the method `name` can repeat; a population copies the state of a torch optimizer."""
    if METHODS[name].build is Transplant:
        return [other for other, entry in METHODS.items() if issubclass(entry.options, online.InitialOptions)]
    base = ScheduledOptions if METHODS[name].build is Population else Options
    return [other for other, entry in METHODS.items() if entry.build is Training and issubclass(entry.options, base)]


OPTIMIZERS = dict.fromkeys((*OPTIMIZER_LABELS, *tuning_free.METHODS))
"""Names under which a space may have laws of its own."""


def default_label(spec: Mapping[str, Any]) -> str:
    """What figures call a method whose configuration gives it no label."""
    label = METHODS[spec["name"]].label
    if spec.get("pruner", "none") != "none":
        label += f", {spec['pruner'].replace('-', ' ')}"
    if spec.get("order", "kept") != "kept":
        label += f", {spec['order']}"
    if "over" in spec:
        return f"{label}: {spec['over']['label']}"
    if spec.get("schedule", "constant") != "constant":
        label += f", {spec['schedule']}"
    usual = METHODS[spec["name"]].options.model_fields.get("optimizer")
    if usual is not None and usual.default.name != spec["optimizer"]["name"]:
        label += f", {OPTIMIZER_LABELS[spec['optimizer']['name']]}"
    return label


def build_method(name: str, options: Mapping[str, Any], space: Space) -> Method:
    """The method `name` from its options as plain values."""
    entry = METHODS[name]
    if not entry.is_over:
        return entry.build(entry.options.model_validate(options), space)
    inner = {key: value for key, value in options["over"].items() if key not in ("name", "label")}
    over = build_method(options["over"]["name"], inner, space)
    return entry.build(entry.options.model_validate({**options, "over": None}), over)
