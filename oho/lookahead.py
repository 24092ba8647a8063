"""The validation gradient of a captured step, taken while the step's curvature products are computed.

    symbol  name        meaning
    g, v    gradients   of the training loss at the weights θ, and of the validation loss at θ'
    H Z     products    of the training loss's Hessian and the influence Z = dθ/dh
    θ', Z'  next        the weights and the influence after the step

    stream       begins with   goes on with              ends with
    the step's   g             H Z                       Z', and the meta-step from v · Z'
    beside it                  θ' (needs g alone), v

Kernels of small networks leave most of a GPU idle, and those of two streams run side by side.  Products are taken at θ,
which the model holds until they are done.  So the validation loss finds θ' in copies of the model's tensors, which take
their places while its operations are recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from oho.engines.side_stream import Mark, SideStream, wait
from oho.flat_parameters import FlatParameters


class Lookahead:
    """Takes gradients at the weights that a step is about to reach; on a CPU at once, on a GPU on a stream of its own.

    A step calls `reset`, `begin`, `wait_for_weights` and `take`, in this order.  `training` is the stream on which the
    training loss is evaluated: autograd hands a parameter's gradients to the stream on which it was first used while that
    graph lives, and so would make the step's own wait for v.
    """

    def __init__(self, parameters: FlatParameters):
        self._parameters, self._copies = parameters, _copies_of(parameters.tensors)
        device = parameters.tensors[0].device
        self.training, self._side = SideStream(device), SideStream(device)
        self._has_weights: Mark = None
        self._vector: Tensor | None = None

    def reset(self) -> None:
        """Forgets what a step that failed has left."""
        self._vector = self._has_weights = None

    def begin(self, weights: Callable[[], Tensor], gradient: Callable[[], Tensor]) -> None:
        """Starts to compute weights (M, N), and then the gradient (M, N) of a loss with them in the model."""
        try:
            with self._side.work():
                with torch.no_grad():
                    torch._foreach_copy_(self._copies, self._parameters.split(weights()))
                self._has_weights = self._side.mark()
                with _in_place_of(self._parameters.tensors, self._copies), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
                    self._vector = gradient()
        except BaseException:
            self._side.join()
            raise

    def wait_for_weights(self) -> None:
        """Waits until what the weights are computed from has been read, so that it may change."""
        wait(self._has_weights)
        self._has_weights = None

    def take(self) -> Tensor | None:
        """Waits for the gradient (M, N) and returns it, once; None if none has been begun."""
        vector, self._vector = self._vector, None
        if vector is not None:
            self._side.join()
            with self.training.work():  # autograd has made it wait for v
                pass
            self.training.join()
        return vector


def _copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies that lie in memory as the tensors do, those of one piece of memory in one piece."""
    copies, storages = [], dict[int, torch.UntypedStorage]()
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages[storage.data_ptr()] = storage.clone()
        copy = storages[storage.data_ptr()]
        copies.append(tensor.new_empty(0).set_(copy, tensor.storage_offset(), tensor.shape, tensor.stride()))
    return copies


@contextmanager
def _in_place_of(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> Iterator[None]:
    """Makes the model's tensors use the memory of their copies inside the block.

    Under `torch.autocast`, PyTorch keeps cast parameters, which are dropped here.
    """
    own = [tensor.data for tensor in tensors]
    _use(tensors, copies)
    try:
        yield
    finally:
        _use(tensors, own)


def _use(tensors: Sequence[Tensor], memory: Sequence[Tensor]) -> None:
    for tensor, place in zip(tensors, memory, strict=True):
        tensor.data = place
    torch.clear_autocast_cache()
