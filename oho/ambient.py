"""The caller's `torch.autocast`: his closures run under it, nothing else does.

Around a whole loop it would round hypergradients and products to bfloat16, as it does every matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

Closure = Callable[[], Tensor]


@contextmanager
def outside_autocast(device: torch.device) -> Iterator[Callable[[Closure], Closure]]:
    """Switches autocast off inside the block; yields what makes a closure run under the caller's."""
    kinds = [kind for kind in dict.fromkeys(("cpu", device.type)) if torch.is_autocast_enabled(kind)]
    if not kinds:
        yield lambda closure: closure
        return
    settings = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds]
    keeps_casts = torch.is_autocast_cache_enabled()

    def under(closure: Closure) -> Closure:
        def call() -> Tensor:
            torch.clear_autocast_cache()  # a cast made under no_grad has no gradient
            with ExitStack() as stack:
                for kind, dtype in settings:
                    stack.enter_context(torch.autocast(kind, dtype, cache_enabled=keeps_casts))
                return closure()

        return call

    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield under
