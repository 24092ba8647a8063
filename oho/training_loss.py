"""Derivatives of the training loss with respect to parameters and, if it has any, its own hyperparameters.

    symbol  name        shape       meaning
    M       members     ()          independent trainings side by side
    N       size        ()          tuned elements of one member
    V       components  ()          entries of one hyperparameter of the loss
    Z       influence   (K, M, N)   dθ/dh; the last rows are those of the loss's hyperparameters
    dg      products    (K, M, N)   H Z, and ∂g/∂h in the rows of the loss: the change of the gradient along each row
    u       direction   (M, N)      (∂θ'/∂g)ᵀ v
    d       one-step    (M, V)      ∂(g · u)/∂h: the hypergradient through the last step alone

d takes one product with (u, 0) at (θ, h), whatever V is: it is the product's columns of h.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from oho.engines.answering import Curvature, GraphSteps
from oho.engines.curvature import Closure, Derivatives, Engine
from oho.engines.repetition import Repeatable
from oho.flat_parameters import FlatParameters
from oho.loss_hyper import LossArguments, LossHyper
from oho.micro_batches import mean_derivatives, mean_tensor
from oho.recursion import Recursion

Phase = Callable[[str], None]


class TrainingLoss:
    """Differentiates the closures of an optimizer, with the engine `curvature`, which is checked if `check` is "first"."""

    def __init__(self, parameters: FlatParameters, loss: LossHyper | None, *, curvature: str | Engine, check: str | None):
        self._parameters = parameters
        self.arguments = LossArguments(loss, parameters)
        self._curvature = Curvature(curvature, self.arguments.extended, check=check)
        self._checked = False
        self.one_step = () if loss is None else loss.one_step

    @property
    def engine(self) -> str:
        """The name of the engine that answers."""
        return self._curvature.engine

    @property
    def calls_again(self) -> bool:
        """Whether the engine that answers calls a closure more than once."""
        return self._curvature.calls_again

    @property
    def has_replicas(self) -> bool:
        """Whether the first step showed that DistributedDataParallel replicates the model."""
        return self._curvature.has_replicas

    @property
    def sparse_buffers(self) -> list[Tensor]:
        """The sparse ones among the buffers that the first step used."""
        return [buffer for buffer in self._curvature.buffers.tensors() if buffer.layout is not torch.strided]

    @contextmanager
    def keeping_buffers(self) -> Iterator[None]:
        """Puts the buffers that the first step used, such as batch norm's, back as they were, at the end of the block."""
        before = self._curvature.buffers.now()
        try:
            yield
        finally:
            before.put_back()

    @contextmanager
    def in_graph(self, steps: GraphSteps) -> Iterator[None]:
        """Makes steps inside the block those of a graph."""
        self._curvature.graph = steps
        try:
            yield
        finally:
            self._curvature.graph = None

    def bound(
        self, closures: list[Callable[..., Tensor]], values: Mapping[str, Tensor], which: str = "training"
    ) -> list[Closure]:
        """Returns training or curvature closures bound to the hyperparameters of the loss, set to `values` (M, V).

        Raises:
            TypeError: at the first step, for a closure that takes another number of arguments.
        """
        if not self._checked:
            for closure in closures:
                check_arguments(closure, which, self.arguments.given)
        if self.arguments.loss is None:
            return closures
        self.arguments.set(values)
        return [self.arguments.bound(closure) for closure in closures]

    def unbound(self, closures: list[Closure]) -> list[Closure]:
        """Returns validation closures, which take no argument; raises TypeError as `bound` does."""
        if not self._checked:
            for closure in closures:
                check_arguments(closure, "validation", {})
        return closures

    def repeatable(self, closures: Sequence[Closure]) -> list[Repeatable]:
        """Returns closures that can be called again within a step."""
        return [self._curvature.repeatable(closure) for closure in closures]

    def differentiate(
        self,
        closures: Sequence[Closure],
        tangents: Tensor,
        *,
        discount: float,
        phase: Phase,
        curvature: Sequence[Closure] = (),
        on_gradient: Callable[[Tensor], None] | None = None,
    ) -> Derivatives:
        """Returns loss, gradient and dg for tangents Z (K, M, N), each a mean over the closures; μ is the discount.

        μ dg belongs to the tangents μ Z.  If μ is 0, Z must be zero, and dg belongs to Z itself.  If closures `curvature`
        are given, dg is that of their loss.  `on_gradient` is called with the gradient (M, N) before the products begin if
        the tape answers for one closure that uses all parameters, after the first step, without replicas or compiled code.

        Raises:
            ValueError: at the first step, for a loss that does not depend on parameters or on one of its hyperparameters.
        """
        own, rows = self.arguments.rows, len(tangents)
        asked = tangents if discount else tangents[rows - own :]  # the other rows' products are zero
        if self.arguments.columns:
            asked = self.arguments.directions(asked, scale=discount or 1.0)

        if len(closures) > 1 or not self._curvature.can_look_ahead:
            on_gradient = None

        def on_products(gradient: Tensor | None = None, unused: tuple[int, ...] = ()) -> None:
            phase("hypergradient")
            if on_gradient is not None and gradient is not None and not unused:
                on_gradient(gradient[:, : self._parameters.size])

        def differentiate(closure: Closure) -> Derivatives:
            phase("train")
            if len(asked) == 0 or curvature:
                return self._curvature.gradient_alone(closure, asked[:0])
            with self._blaming_the_loss(closure):
                return self._curvature.products(closure, asked, on_products=on_products)

        def only_products(closure: Closure) -> Tensor:
            with self._curvature.aside(closure) as again, self._blaming_the_loss(again):
                return self._curvature.products_alone(again, asked)

        of_part = None
        if curvature and len(asked):  # first, since the first product is the one that is checked
            phase("hypergradient")
            of_part = mean_tensor(curvature, only_products)
        found = mean_derivatives(list(closures), differentiate)
        found = self._curvature.mean(found if of_part is None else found._replace(products=of_part))
        if len(asked) < rows:
            rest = found.products.new_zeros(rows - len(asked), *found.products.shape[1:])
            found = found._replace(products=torch.cat([rest, found.products]))
        return self._of_parameters(found)

    def gradient(self, closures: Sequence[Closure]) -> Derivatives:
        """Returns loss and gradient alone, each a mean over the closures, with products for no tangent.

        Raises:
            ValueError: as `differentiate`.
        """
        parameters = self.arguments.extended
        none = parameters.tensors[0].new_zeros(0, parameters.rows, parameters.size)
        found = mean_derivatives(list(closures), lambda closure: self._curvature.gradient_alone(closure, none))
        return self._of_parameters(self._curvature.mean(found))

    @contextmanager
    def _blaming_the_loss(self, closure: Closure) -> Iterator[None]:
        """Where products fail at the first step, blames the loss if it does not depend on one of its hyperparameters."""
        try:
            yield
        except RuntimeError:
            if self.arguments.columns and not self._checked:
                with suppress(RuntimeError):
                    self._check(self._curvature.unused(closure))
            raise

    def validation_gradient(self, closures: list[Closure]) -> Tensor:
        """Returns v (M, N), the gradient of the mean of the validation losses."""
        vector = self._curvature.mean_vector(mean_tensor(closures, self._curvature.gradient))
        return vector[:, : self._parameters.size] if self.arguments.columns else vector

    def one_step_hypergradients(self, closures: Sequence[Closure], theta: Tensor, direction: Tensor) -> dict[str, Tensor]:
        """Returns d by name, from u (M, N), at the parameters θ (M, N) from which the step was made.

        `closures` are those that `repeatable` returned, each called once before.  The model's parameters stay as they are.
        """

        def product(closure: Closure) -> Derivatives:
            with self._curvature.repeatable(closure) as again:
                return self._curvature.products(again, asked)

        present = self._parameters.gather()
        asked = torch.cat([direction, direction.new_zeros(len(direction), self.arguments.columns)], -1).unsqueeze(0)
        self._parameters.write(theta)
        try:
            found = mean_derivatives(list(closures), product)
        finally:
            self._parameters.write(present)
        of_loss = self._curvature.mean(found).products[0, :, self._parameters.size :]
        return {name: of_loss[:, self.arguments.spans[name]] for name in self.one_step}

    def _of_parameters(self, found: Derivatives) -> Derivatives:
        """Returns derivatives without the columns of the loss's hyperparameters."""
        if self.arguments.columns == 0:
            self._checked = True
            return found
        count, size = len(self._parameters.tensors), self._parameters.size
        if not self._checked:
            self._check(found.unused)
        unused = tuple(place for place in found.unused if place < count)
        return found._replace(gradient=found.gradient[:, :size], unused=unused, products=found.products[..., :size])

    def _check(self, unused: tuple[int, ...]) -> None:
        count = len(self._parameters.tensors)
        if len([place for place in unused if place < count]) == count:
            raise ValueError(
                "a closure's loss depends on none of this optimizer's parameters; is it that of another model?"
            )
        if missing := [name for place, name in enumerate(self.arguments.tuned, start=count) if place in unused]:
            raise ValueError(
                f"the training loss does not depend on {', '.join(missing)}: compute it with the tensor h[{missing[0]!r}]"
                " itself (no float(), item() or detach()), by oho.losses.cross_entropy where torch's takes a plain number,"
                f" or leave {missing[0]!r} out of LossHyper's tune"
            )
        self._checked = True


class OneStep:
    """The one-step hypergradients of a step, which must call each of `closures` once."""

    def __init__(self, loss: TrainingLoss, recursion: Recursion, closures: Sequence[Closure]):
        self._loss, self._recursion = loss, recursion
        self.closures = loss.repeatable(closures)

    def begin(self, gradient: Tensor) -> None:
        """Records the state from which the step is about to be made with g (M, N)."""
        self._theta, self._pull = self._recursion.gradient_pullback(gradient)

    def hypergradients(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns d by name from v (M, N)."""
        return self._loss.one_step_hypergradients(self.closures, self._theta, self._pull(vector))


def check_arguments(closure: Callable[..., Tensor], which: str, given: Mapping[str, Tensor]) -> None:
    """Raises TypeError for a closure that cannot be called with what it is given: h, or nothing."""
    try:
        signature = inspect.signature(closure)
    except (TypeError, ValueError):  # a builtin
        return
    own = [name for name, parameter in signature.parameters.items() if parameter.default is not parameter.empty]
    try:
        bound = signature.bind(*([given] if given else []))
        if not given or not set(bound.arguments) & set(own):  # lambda batch=batch: ... would take h for its batch
            return
        raise TypeError
    except TypeError:
        if given:
            needs = f"take the hyperparameters of its loss ({', '.join(given)}) as its one argument: lambda h: ..."
        elif which != "validation":
            needs = "take no argument, unless OHO(..., loss=oho.LossHyper(...)) gives the loss hyperparameters"
        else:
            needs = "take no argument"
        raise TypeError(f"step: the {which} closure must {needs}") from None
