"""Identifies the machine and GPU driver of a run; seconds compare only between runs that share both."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

IDENTITIES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def node_name() -> str:
    """Returns the user's name for this machine, $OHO_NODE, or eight hexadecimal digits that stay the same.

    They are of a hash of the system's own random identity and of the host's name, neither of which can be read off them.
    """
    return os.environ.get("OHO_NODE") or _hashed()


@cache
def _hashed() -> str:
    known = [platform.node()]
    for path in IDENTITIES:
        if path.is_file():
            known.append(path.read_text(encoding="ascii", errors="replace").strip())
            break
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


@cache
def driver_of(device: torch.device) -> str | None:
    """Returns the version of a GPU's driver; None on a CPU, or where the system does not say."""
    lines = ask_gpu(device, "--query-gpu=driver_version")
    return lines[0].strip() if lines else None


def ask_gpu(device: torch.device, query: str) -> list[str] | None:
    """Returns the lines in which `nvidia-smi` answers a query about a GPU; None on a CPU, or where there is no answer."""
    if device.type != "cuda":
        return None
    try:
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        command = ["nvidia-smi", query, "--format=csv,noheader", "-i", name]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError):  # after a crash, the GPU may be gone
        return None
    return [line for line in answer.stdout.splitlines() if line.strip()]
