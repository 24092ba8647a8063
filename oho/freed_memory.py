"""Memory that a step frees and the next one asks for again."""

from __future__ import annotations

import torch

BYTES = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed, up to 64 MiB, where it would hand large blocks back to the system at once.

    A step's temporaries are hundreds of KiB each, and a block handed back costs a page fault for every 4 KiB when it is
    asked for again.  glibc raises its threshold to the largest block freed, at most 32 MiB: see M_MMAP_THRESHOLD in
    mallopt(3).  The block below is never written to, so it costs nothing; other allocators do not care.
    """
    torch.empty(BYTES, dtype=torch.uint8, device="cpu")
