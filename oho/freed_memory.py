"""Memory that a step frees and the next one asks for again."""

from __future__ import annotations

import torch

BYTES = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Makes glibc keep up to 64 MiB of freed memory, where it would return large blocks to the system at once.

    A step's temporaries take hundreds of KiB each, and a block that was returned costs a page fault for every 4 KiB when it
    is allocated again.  glibc raises its threshold to the size of the largest block freed, up to 32 MiB: see
    M_MMAP_THRESHOLD in mallopt(3).  The block below is never written to, so that it costs nothing; other allocators ignore
    it.
    """
    torch.empty(BYTES, dtype=torch.uint8, device="cpu")
