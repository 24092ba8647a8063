"""What a worker on a node does.  With Ray these functions travel whole, so that they can refuse other code than ours.

They import nothing of ours before they have compared the hash of the worker's code with the driver's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

CODE = ("oho", "bench", "baselines")
"""The packages on which a run's records depend."""


def hash_of_code(folder: str) -> str:
    """Returns 16 hexadecimal digits of SHA-256 over all Python files of our packages in the folder."""
    digest = hashlib.sha256()
    for package in CODE:
        for path in sorted(Path(folder, package).rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def folder_of_code() -> str | None:
    """Returns the folder from which this process would import our code, or None if it is not installed."""
    found = importlib.util.find_spec("bench")
    return os.path.dirname(os.path.dirname(found.origin)) if found is not None and found.origin else None  # noqa: PTH120


def work(order: dict[str, Any]) -> Any:
    """Makes a run in a worker, and returns a `Result` or, as words, why this node cannot make any."""
    folder = folder_of_code()
    if folder is None:
        return f"oho-bench {order['version']} is not installed there"
    present = hash_of_code(folder)
    if present != order["code"]:
        return f"has another version of oho-bench (its code's hash is {present}, the driver's {order['code']})"
    is_closed = importlib.import_module("bench.process.surroundings").is_closed
    for name in [name for name in os.environ if is_closed(name)]:  # before any library reads them
        del os.environ[name]
    return importlib.import_module("bench.command.remote_run").make_remotely(order)
