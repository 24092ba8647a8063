"""`OHO.step` as one CUDA graph: training gradient, products, influence, validation gradient and meta-step.

Plain steps, tuned steps and steps with a meta-step are three graphs; those that hold a hyperparameter are others.  The host
still decides whether a step is tuned and whether a meta-step is due, resets the influence, and counts the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from oho.engines.answering import GraphSteps
from oho.engines.branches import Branches
from oho.graphs import Around, Captured, StaticInputs
from oho.lookahead import Lookahead
from oho.optimizer import OHO
from oho.stand_in import NotCapturableError

Batch = Sequence[Tensor]
Loss = Callable[..., Tensor]


class CapturedStep:
    """Makes an optimizer's steps on batches of one shape, after three eager ones by replaying a CUDA graph.

        step = oho.CapturedStep(optimizer, loss, loss)      # loss(x, y) of the model on a batch
        for batch, held_out in zip(batches, validation_batches):
            step(batch, held_out)                           # as optimizer.step(lambda: loss(*batch), ...)

    It gives the same numbers as `optimizer.step`, to the rounding of kernels that another stream chooses.  Losses may not
    ask what a tensor holds (`item()`, `if loss > 1`, a boolean index), nor take anything else that changes from step to
    step; dropout draws anew in each replay.  `on_phase` and the hooks of `step` are not called.

    Args:
        optimizer: one that captures: see `refusal`.
        train: the training loss of a batch's tensors and, if the loss has hyperparameters, of these behind them.
        valid: the validation loss of a validation batch's tensors; None makes no meta-steps.
        curvature: the training loss of a part of the batch, from which products are taken, as `train` is called.
        generators: the generators that losses draw from, besides the device's own; the list may grow until the fourth step.
            Each step draws on from where they stand, so that you may seed them before it.
        look_ahead: whether validation gradients may be taken while the step's products are computed (`oho.lookahead`), at
            the price of a copy of the parameters.  It gives the same numbers, bit for bit; small networks gain most.
            Losses must then read the parameters themselves, not views made beforehand, and the validation loss must leave
            alone what the training loss has used.  It is done for single training closures that the tape answers for,
            without `curvature`, noise, replicas, compiled code, narrow or unused parameters.
        around: makes a context manager that is entered around a capture, such as one that stops a timer.
        stand_in: on a CPU, where there are no graphs, checks at each step that a graph would repeat it; for tests.

    Raises:
        ValueError: for an optimizer that cannot be captured, or a CPU without `stand_in`.
    """

    def __init__(
        self,
        optimizer: OHO,
        train: Loss,
        valid: Loss | None = None,
        *,
        curvature: Loss | None = None,
        generators: Sequence[torch.Generator] = (),
        look_ahead: bool = False,
        around: Around = nullcontext,
        stand_in: bool = False,
    ):
        self.optimizer, self._train, self._valid = optimizer, train, valid
        self._curvature = curvature
        self._given, self._generators = generators, list[torch.Generator]()
        self._around, self._stand_in = around, stand_in
        self._batch: StaticInputs | None = None
        self._held_out: StaticInputs | None = None
        self._captured: dict[tuple[bool, bool, tuple[str, ...]], Captured] = {}
        self._loads = optimizer._recursion.loads
        self._lookahead = Lookahead(optimizer._flat) if look_ahead and _can_look_ahead(optimizer) else None
        self._steps = self._new_steps()
        self._check()

    def __call__(self, batch: Batch, held_out: Batch | Callable[[], Batch] | None = None) -> Tensor:
        """Makes one step; returns the training loss, detached, which the next step overwrites.

        `held_out` is the validation batch, or a function that returns it, called if a meta-step is due.

        Raises:
            TypeError: for a batch that is one tensor, which would be taken for as many tensors as it has rows.
            ValueError: for a batch of another shape than the first.
            NotCapturableError: for a step that no graph can repeat.
        """
        is_due = self._valid is not None and held_out is not None and self.optimizer.is_due
        self._batch = self._filled(self._batch, batch)
        if is_due:
            assert held_out is not None
            self._held_out = self._filled(self._held_out, held_out() if callable(held_out) else held_out)
        if self._loads != self.optimizer._recursion.loads:  # loading a state replaced the optimizer's tensors
            self._captured, self._loads = {}, self.optimizer._recursion.loads
        is_tuned = self.optimizer.is_tuned
        kind = (is_tuned, is_due, self.optimizer.held if is_tuned else ())
        if kind not in self._captured:
            self._captured[kind] = self._of_kind(is_due)
        if not self._captured[kind].is_captured:
            self._check()  # the first step shows which engine answers
            self._generators[:] = [*self.optimizer._recursion.generators, *self._given]
        steps = self.optimizer.steps
        self.optimizer._recursion.is_captured = True
        self.optimizer._before_step(is_validated=self._valid is not None and held_out is not None)
        with self.optimizer._loss.in_graph(self._steps):
            try:
                loss = self._captured[kind]()
            except NotCapturableError:
                if not self._captured[kind].is_captured:  # a capture that broke has moved nothing but the count
                    self.optimizer._recursion.steps = steps
                raise
        self.optimizer._recursion.steps = steps + 1  # a replay runs no Python
        self.optimizer._after_step(is_due)
        return loss

    def release(self) -> None:
        """Frees the graphs, and leaves the optimizer as if its steps had never been captured.

        You can call `optimizer.step` between two captured steps at any time; call this method once no captured steps
        follow.  If some do follow, they are captured anew, and their batches may have another shape.
        """
        self._captured, self._steps = {}, self._new_steps()
        self._batch = self._held_out = None
        self.optimizer._recursion.is_captured = False

    def _new_steps(self) -> GraphSteps:
        training = None if self._lookahead is None else self._lookahead.training
        return GraphSteps(Branches(self.optimizer._flat.tensors[0].device, training))

    def _check(self) -> None:
        """Raises ValueError for an optimizer whose step cannot be captured."""
        reason = refusal(self.optimizer)
        if self._steps.moves_aside:
            reason = "its curvature closure draws from PyTorch's own generators or moves buffers, which a step has to undo"
        if reason:
            raise ValueError(f"this optimizer's step cannot be captured: {reason}")

    def _filled(self, inputs: StaticInputs | None, batch: Batch) -> StaticInputs:
        if isinstance(batch, Tensor):
            raise TypeError("a batch is a sequence of tensors, such as (inputs, targets); given one tensor")
        if inputs is None:
            return StaticInputs(batch, self.optimizer._flat.tensors[0].device)
        inputs.fill(batch)
        return inputs

    def _of_kind(self, is_due: bool) -> Captured:
        """Returns a step with or without a meta-step, to be captured."""
        optimizer = self.optimizer
        assert self._batch is not None
        train = partial(self._train, *self._batch.tensors)
        valid = None
        if is_due:
            assert self._valid is not None
            assert self._held_out is not None
            valid = partial(self._valid, *self._held_out.tensors)
        part = None if self._curvature is None else partial(self._curvature, *self._batch.tensors)
        step = partial(optimizer._step, train, valid, part, is_due=is_due, lookahead=self._lookahead)
        device = optimizer._flat.tensors[0].device
        return Captured(step, device, generators=self._generators, around=self._around, stand_in=self._stand_in)


def _can_look_ahead(optimizer: OHO) -> bool:
    """Returns whether the weights after a step follow from its gradient alone, and the model holds them unrounded."""
    return optimizer.rule.temperature == 0 and not optimizer._flat.is_narrow


def refusal(optimizer: OHO) -> str:
    """Returns why an optimizer's step cannot be captured, or "" if it can; closures may still prevent it."""
    if optimizer.on_nonfinite == "raise":
        return "on_nonfinite='raise' asks in each step; choose 'reset' or 'skip'"
    if optimizer._loss.has_replicas:
        return "processes of DistributedDataParallel ask each other which parameters were used; make eager steps"
    if optimizer._loss.one_step:
        return "one-step hypergradients of the loss call its closure again; choose LossHyper(one_step=False)"
    if optimizer._loss.calls_again:
        return f"curvature={optimizer.engine!r} calls the training closure again; choose 'pearlmutter' or 'double_backward'"
    if sparse := optimizer._loss.sparse_buffers:
        return f"the model has a sparse buffer {tuple(sparse[0].shape)}; keep it dense (to_dense())"
    device = optimizer._flat.tensors[0].device
    if optimizer.rule.temperature and any(generator.device != device for generator in optimizer._recursion.generators):
        own = f"torch.Generator({str(device)!r})"
        return f"noise is drawn from a generator on another device; give OHO(..., generator={own})"
    return ""
