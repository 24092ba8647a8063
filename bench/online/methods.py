"""OHO as methods: one training whose hyperparameters follow the gradient of the validation loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

import oho
from bench.online.averaged_state import Optimizer
from bench.online.batched import BATCHING
from bench.online.default_options import AveragedOptions, DefaultOptions
from bench.online.exact_twin import ExactTwin
from bench.online.optimizers import Initial, averaged, defaults, published, published_meta
from bench.online.options import OnlineOptions
from bench.online.published_options import FullOptions, GlobalOptions, LayerwiseOptions, PublishedOptions
from bench.online.state import OnlineState, values_of
from bench.online.tuned_loss import loss_hyper
from bench.protocol import GRAPH, Ledger, Method, MethodEntry, Space, Task, draw, train


class Online(Method):
    """A training by the optimizer that `optimize` makes of the model, the initial values, the options, the seed, and what
    is tuned of the training loss."""

    def __init__(
        self,
        options: OnlineOptions,
        space: Space,
        optimize: Callable[[nn.Module, Initial, Any, int, oho.LossHyper | None], Optimizer],
    ):
        self.options, self.space, self.optimize = options, space.of(options.optimizer_name), optimize

    def init(self, task: Task, seed: int) -> OnlineState:
        """Draws open initial values from the space; the L2 coefficient starts no higher than its ceiling.

        Raises:
            ValueError: for a hyperparameter of the training loss that the task does not offer.
        """
        given = self.options.values()
        initial: Initial = {name: value for name, value in given.items() if value is not None}
        initial |= draw(self.space, [name for name in given if name not in initial], seed)
        initial["weight_decay"] = min(initial["weight_decay"], self.options.bounds["weight_decay"][1])
        model, options = task.model(seed), self.options
        loss = loss_hyper(task, options.tuned_of_loss)
        optimizer = self.optimize(model, initial, options, seed, loss)
        hyper = initial | ({} if loss is None else {name: float(value) for name, value in loss.values.items()})
        twin = None
        if options.compare_exact:
            twin = ExactTwin(model, optimizer, options.sets, loss, bounded=options.has_bounded_twin)
        return OnlineState(
            task=task, seed=seed, model=model, hyper=hyper, options=options, optimizer=optimizer,
            batches=task.train_batches(seed),
            validation_batches=task.validation_batches(seed, options.validation_batch_size),
            twin=twin,
        )  # fmt: skip

    def check(self, task: Task) -> None:
        """Raises ValueError where the sets do not fit the network, or the task does not offer what is tuned of its loss."""
        self.init(task, seed=0)

    def advance(self, state: OnlineState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes updates, and the meta-steps that are due after them."""
        state.optimizer.on_phase = ledger.switch

        def update() -> Tensor:
            if state.twin is None:
                return state.make_step()
            with ledger.account("evaluation"):
                state.twin.follow()
            loss = state.make_step()
            with ledger.account("evaluation"):
                state.twin.compare(*state.closures(state.step, state.twin.model))
            return loss

        state.training()
        if state.task.engine == GRAPH:
            state.capture(ledger)
        train(state, steps, ledger, update=update, settle=state.evaluation)
        state.hyper = values_of(state.optimizer)


def _entry(
    description: str, label: str, options: type[OnlineOptions], optimize: Callable[..., Optimizer]
) -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family="online", options=options,
        build=partial(Online, optimize=optimize), takes_kicks=True, batching=BATCHING,
        captures=True,
    )  # fmt: skip


GLOBAL = _entry(
    "exact online hypergradients, one value of each hyperparameter", "Global OHO", GlobalOptions, published_meta
)
LAYERWISE = _entry(
    "one value each for the weights and the biases of every group of layers",
    "Layer-wise OHO",
    LayerwiseOptions,
    published_meta,
)
FULL = _entry("one value for every parameter tensor", "Full OHO", FullOptions, published_meta)
DEFAULT = _entry("the defaults of the library, over any optimizer", "Default OHO", DefaultOptions, defaults)
AVERAGED = _entry(
    "online hypergradients for an average of the weights, at the cost of few plain steps", "Averaged OHO", AveragedOptions,
    averaged,
)  # fmt: skip
PUBLISHED = _entry("the published recursion, defect by defect", "Published OHO", PublishedOptions, published)


def is_online(entry: MethodEntry) -> bool:
    """Returns whether a method is an OHO training, whose schedule can be transplanted."""
    return issubclass(entry.options, OnlineOptions)
