"""Uploads W&B's own files with its command `wandb sync`, and judges by what that says whether they have arrived."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.tracking.wandb_settings import sync_environment

SET_UP = "View run"
"""What `wandb sync` prints when the server has accepted a run."""
SET_UP_SECONDS, SILENT_SECONDS = 20, 60
COMPLAINT = re.compile(r"^(?:wandb: ERROR|Error:) +(?!Find detailed)(?:\[.*?\] )?(.+?)(?:\. Some run data.*)?$", re.M)
HOPELESS = re.compile(r"giving up|timed out|no answer|dial tcp|api key|log(ged)? in|authentic|permission|\b40[13]\b", re.I)
"""Matches errors that the next run would meet as well."""


class SyncError(Exception):
    """A run that could not be uploaded."""


class UnreachableError(SyncError):
    """A server that is missing or does not know the user."""


def upload(files: Sequence[Path], *, project: str | None, entity: str | None) -> None:
    """Runs `wandb sync` and checks its output too, because it exits 0 and leaves its marker even if no row arrived.

    Without a project or an entity, the files go where they say.

    Raises:
        UnreachableError: if no other run could be uploaded either.
        SyncError: if these files have not arrived.
    """
    markers = [path.with_name(f"{path.name}.synced") for path in files]
    for marker in markers:
        marker.unlink(missing_ok=True)
    where = [f"--{name}={value}" for name, value in (("project", project), ("entity", entity)) if value]
    said = _listen([*where, "--include-online", "--include-synced", *(str(path.resolve()) for path in files)])
    errors = COMPLAINT.findall(said)
    if not errors and all(marker.exists() for marker in markers):
        return
    errors = errors or ["no answer in time"]
    why = public(next((error for error in errors if "HTTP" in error), errors[0]))
    raise (UnreachableError if SET_UP not in said and HOPELESS.search(" ".join(errors)) else SyncError)(why)


def _listen(arguments: Sequence[str]) -> str:
    """Returns all output of `wandb sync`, which is ended together with this process or if it is silent for too long."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        command, path = [sys.executable, "-P", "-m", "wandb", "sync", *arguments], Path(scratch, "said")
        with open(path, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, cwd=scratch, env=sync_environment(Path(scratch)), stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            _wait(process, path)
        finally:
            process.kill()
            process.wait()
        return path.read_text(encoding="utf-8", errors="replace")


def _wait(process: subprocess.Popen, path: Path) -> None:
    heard, last = 0, time.monotonic()
    while process.poll() is None and time.monotonic() - last < (SILENT_SECONDS if heard else SET_UP_SECONDS):
        time.sleep(0.05)
        said = path.read_text(encoding="utf-8", errors="replace")
        if SET_UP in said and len(said) > heard:
            heard, last = len(said), time.monotonic()


def public(text: str) -> str:
    """Returns the text without server addresses, the home folder and anything that may be a key."""
    home = os.path.expanduser("~")  # noqa: PTH111  a home that is unknown is no error here
    text = re.sub(r'"?https?://[^\s"]+"?', "the server", text).replace(f"{home}/", "~/")
    return re.sub(r"\w{40,}", "[hidden]", text)
