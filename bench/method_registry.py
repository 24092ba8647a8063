"""The methods by name: description, label on figures, options class, constructor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from baselines import training
from baselines.search import Search, SearchOptions
from baselines.training import Training
from bench import online
from bench.online import Online
from bench.protocol import Method, Options, Space


@dataclass(frozen=True)
class MethodEntry:
    """`build(options, space)` makes the method; `searcher` is set for methods that search over another one."""

    description: str
    label: str
    options: type[Options]
    build: Callable[..., Method]
    searcher: str | None = None


METHODS: dict[str, MethodEntry] = {
    "fixed": MethodEntry("SGD at a constant learning rate", "Fixed", training.FixedOptions, Training),
    "step": MethodEntry("SGD, learning rate times gamma every step_size", "Step", training.StepOptions, Training),
    "exponential": MethodEntry(
        "SGD, learning rate times gamma every epoch", "Exponential", training.ExponentialOptions, Training
    ),
    "cosine": MethodEntry("SGD, learning rate along half a cosine to 0", "Cosine", training.CosineOptions, Training),
    "adam": MethodEntry("Adam at a constant learning rate", "Adam", training.AdamOptions, Training),
    "random-search": MethodEntry(
        "restarts at points drawn from the space", "Random search", SearchOptions, Search, "random"
    ),
    "bayesian-search": MethodEntry(
        "restarts at points of a Gaussian process with expected improvement",
        "Bayesian optimization",
        SearchOptions,
        Search,
        "gaussian-process",
    ),
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
}


def searchable() -> list[str]:
    """Names of the methods a search can repeat."""
    return [name for name, entry in METHODS.items() if entry.build is Training]


def build_method(name: str, options: Options, space: Space) -> Method:
    """The method `name`; for a search, `options.over` holds the options of the method it repeats."""
    entry = METHODS[name]
    if entry.searcher is None:
        return entry.build(options, space)
    assert isinstance(options, SearchOptions)
    return entry.build(options, Training(options.over, space), space, entry.searcher)
