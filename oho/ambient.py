"""The caller's `torch.autocast`: closures run under it, and nothing else does.

An autocast around a whole training loop would round every matrix product to bfloat16, hypergradients included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

Closure = Callable[[], Tensor]


@contextmanager
def outside_autocast(device: torch.device) -> Iterator[Callable[[Closure], Closure]]:
    """Switches autocast off inside the block; yields a function that makes a closure run under the caller's again."""
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
