"""Named random streams: every draw comes from a generator keyed by (seed, purpose, counter), never from a global one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def stream_seed(seed: int, purpose: str, counter: int = 0) -> int:
    """Returns a 63-bit number that depends on the arguments alone: the same on every machine and in every process."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, purpose: str, counter: int = 0, *, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a fresh generator for one purpose; a GPU's gives other numbers than the CPU's."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, counter))


@contextlib.contextmanager
def seeded(seed: int, purpose: str, counter: int = 0) -> Iterator[None]:
    """Runs code that knows only the global generator (layer initialisers) on a named stream, then restores it."""
    # `torch.manual_seed` notes the whole call stack for each accelerator that is missing, for some milliseconds.
    seed_all = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    with torch.random.fork_rng():
        seed_all(stream_seed(seed, purpose, counter))
        yield
