"""What an optimizer shows, saves and lets others set of the recursion that it makes steps of.

    symbol  name        shape    meaning
    M       members     ()       independent trainings side by side; without a population there is no such axis
    S       sets        ()       values of one hyperparameter of the update rule
    V       components  ()       entries of one hyperparameter of the training loss
    θ       parameters  (M, N)   all tuned parameters of each member
    h       value       (M, S)   one hyperparameter; (M, V) of the loss
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oho.flat_parameters import FlatParameters
from oho.hyper_view import HyperView, flat_values
from oho.parameter_groups import ParameterGroup
from oho.recursion import Recursion


class RecursionOptimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` whose state lives in a recursion, and each of whose `groups` is one set.

    The groups take present values from the recursion only when someone reads them, so that no step waits for its device.
    """

    def __init__(
        self,
        recursion: Recursion,
        parameters: FlatParameters,
        *,
        groups: Iterable[dict[str, Any]],
        defaults: dict[str, Any],
    ):
        self._recursion, self._flat = recursion, parameters
        self.rule, self.set_map = recursion.rule, recursion.set_map
        self._unshown = set(self.rule.names)
        """The hyperparameters whose present values the groups have yet to take."""
        self._holds_average = False
        """Whether the model holds the average of the weights now."""
        super().__init__(groups, defaults)
        self._show()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises ValueError: all groups are given at once, since the influence is carried from the first step on."""
        index = len(self.param_groups)
        if index == self.set_map.count:
            raise ValueError("add_param_group: influence is carried from the first step on; give OHO all groups at once")
        assign = partial(self._assign_set, index)
        self.param_groups.append(ParameterGroup(param_group, self.rule.names, assign=assign, refresh=self._show))

    @property
    def steps(self) -> int:
        """The number of steps made."""
        return self._recursion.steps

    @property
    def present_share(self) -> float:
        """How far from the average towards the present weights validation gradients are taken, in [0, 1]."""
        return self._recursion.present_share

    @property
    def hyper(self) -> HyperView:
        """Values by name, as they are when an entry is read: copies of shape (S,), or (M, S) with members.

        Assigning to an entry calls `set_hyper`.

        Hyperparameters of the loss have the shape that closures are given: () or (V,), with members (M,) or (M, V).
        """
        return HyperView(lambda: self._recursion.tuning.shown(self._recursion.tuning.values), self.set_hyper)

    def flat_hyper(self) -> dict[str, float]:
        """Returns present values as plain numbers for any logger, by name and set (and member): {"lr/0.weight": 0.1}.

        Hyperparameters of the loss are named by component (and member): {"label_smoothing": 0.1, "task/0": 1.0}.  One with
        more than ONE_STEP_ABOVE components is summed up by "/mean", "/min" and "/max".
        """
        return flat_values(self.param_groups, self.rule.names) | self._recursion.tuning.flat_of_loss()

    @property
    def hypergradient(self) -> dict[str, Tensor]:
        """d(validation loss)/dh at the last meta-step, by tuned name: (S,), or (M, S) with members.

        It is NaN before the first meta-step, and taken with respect to the value itself, whatever the meta-rule's transform
        is.  For hyperparameters of the loss it has the shape that they have in `hyper`.
        """
        tuning = self._recursion.tuning
        return {name: value.clone() for name, value in tuning.shown(tuning.hypergradients).items()}

    @property
    def skipped(self) -> dict[str, Any]:
        """The number of meta-steps skipped, by reason: an int, or (M,) with members.

        "influence" counts those where tangents were not finite, "hypergradient" those where only the hypergradient, or
        what the meta-rule made of it, was not.
        """
        return self._recursion.counts.skipped

    @property
    def shortened(self) -> Any:
        """The number of steps in which the influence limit acted: an int, or (M,) with members."""
        return self._recursion.counts.shortened

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Returns the norm of dθ/dh over all sets, by tuned name: (), or (M,) with members."""
        return {name: self._flat.per_member(norm) for name, norm in self.norms_of(slice(None)).items()}

    def norms_of(self, rows: slice) -> dict[str, Tensor]:
        """Returns the same norms for a slice of the members alone, always with the axis (M,)."""
        return self._recursion.influence_norm(rows)

    @torch.no_grad()
    def set_hyper(self, name: str, value: float | Tensor | Mapping[Hashable, float]) -> None:
        """Sets a hyperparameter from outside: to one number, to one for each set (S,), or to (M, S) with members.

        A mapping from label to number sets the sets that it names, and leaves the others.

        Raises:
            ValueError: for a name the rule lacks, a label that no set has, a shape that does not fit, a value that is not
                finite, or a tuned one outside its bounds.
        """
        self._recursion.tuning.assign(name, value)
        if name in self.rule.names:
            self._unshown.add(name)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the average of the weights into the model for a block; afterwards the weights are what they were."""
        before, self._holds_average = self._holds_average, self._recursion.averaged is not None
        try:
            with self._recursion.at_average():
                yield
        finally:
            self._holds_average = before

    def state_dict(self) -> dict[str, Any]:
        """Returns all but parameters and options as tensors and plain numbers, to be saved with the model's own state.

        Raises RuntimeError while the model holds the average: the weights of the training would not be saved.
        """
        self._check_weights("state_dict")
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self._recursion.state()
        for after in self._optimizer_state_dict_post_hooks.values():
            state = after(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues, bit for bit, from the `state_dict` of an optimizer built with the same arguments.

        Raises:
            ValueError: if names, shapes or dtypes are another optimizer's; nothing is changed then.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        self._recursion.load(state_dict)
        self._unshown.update(self.rule.names)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy keeps: all but the wrapper that a scheduler has put around this optimizer's own `step`.

        Raises RuntimeError while the model holds the average: the weights of the training would be lost.
        """
        self._check_weights("copy")
        return {name: value for name, value in vars(self).items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over what `__getstate__` returned, in which the groups have become plain mappings."""
        super().__setstate__(state)
        groups, self.param_groups = self.param_groups, []
        for group in groups:
            self.add_param_group(group)

    def _check_weights(self, what: str) -> None:
        """Raises RuntimeError if the model holds the average of its weights."""
        if self._holds_average:
            held = "the model holds the average of its weights; leave `with optimizer.averaged():` first"
            raise RuntimeError(f"{what}: {held}")

    def _assign_set(self, index: int, name: str, value: Any) -> None:
        """Sets a hyperparameter of one set, which its group then shows as the optimizer holds it."""
        self._recursion.assign_set(index, name, value)
        self._unshown.add(name)

    def labels_of(self, name: str) -> tuple[Hashable, ...]:
        """Returns what the values of a hyperparameter are called: the sets or, of the loss, the places in a vector."""
        return self._recursion.tuning.labels_of(name)

    def _show(self) -> None:
        """Copies present values into `param_groups`, which are about to be read."""
        unshown, self._unshown = self._unshown, set()
        for name in unshown:
            for group, value in zip(self.param_groups, self._recursion.tuning.numbers(name), strict=True):
                group.show(name, value)  # type: ignore[attr-defined]
