"""What wandb says of itself and of its server, in one line: whether it can be used, and why it failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from bench.records.names import clipped

OLDEST = (0, 31)
"""The first version that was tried; pyproject.toml asks for it, too."""
LONGEST_REASON = 300
"""In characters; a proxy may answer with a whole page."""
STREAM_FAILED, CONFIG_FAILED = "filestream: fatal error: ", "runupserter: failed to upload changes"
"""What W&B's own log says where the server has not taken rows, and where it has not taken configuration or tags."""


@cache
def why_unusable() -> str:
    """Returns why the wandb that is installed cannot be used, or an empty text."""
    try:
        import wandb
    except Exception as error:  # whatever an installation that is broken raises
        return in_words(f"{type(error).__name__}: {error}")
    version = getattr(wandb, "__version__", None)  # a folder `wandb` without the package is a module of Python, too
    needed = f"wandb {'.'.join(map(str, OLDEST))} or later is needed"
    if version is None:
        return f"{needed}, and none is installed"
    return "" if _numbers(version) >= OLDEST else f"{needed}, and {version} is installed"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(OLDEST)])


def in_words(text: str) -> str:
    """Returns the reason in one of W&B's messages, in one line, without addresses, attempts and the answer's JSON."""
    text = " ".join(text.split())
    text = re.sub(r'\{.*?"message": ?"(.*?)".*\}', r"\1", text)
    text = re.sub(r" giving up after \d+ attempt\(s\)(?:.* while retrying: |:? ?)", " ", text)
    text = re.sub(r'\b(?:POST|Post|GET|Get|url=) ?"?https?://[^\s"]+"?:? ?', "", text)
    text = re.sub(r"Failed to get resume status for run \S+: |Error initializing run: ", "", text)
    return clipped(" ".join(text.split()), LONGEST_REASON)


@contextmanager
def in_own_words() -> Iterator[None]:
    """Raises W&B's errors again with their reasons alone."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise type(error)(in_words(str(error))) from None


@contextmanager
def refusals_raised(run: Any) -> Iterator[None]:
    """Raises `ConnectionError` if the server has not taken what W&B sent of a run that is ended within.

    W&B itself goes on without a word.  Rows that were refused are lost to it, whenever that was; configuration is sent
    whole each time, so that its last sending counts.
    """
    log = Path(run.settings.log_internal)
    before = len(_content(log))
    yield
    content = b"" if run.offline else _content(log)
    reasons = [*_failures(content, STREAM_FAILED), *_failures(content[before:], CONFIG_FAILED)]
    if reasons:
        raise ConnectionError(in_words(reasons[0]))


def _content(log: Path) -> bytes:
    try:
        return log.read_bytes()
    except OSError:
        return b""


def _failures(content: bytes, start: str) -> Iterator[str]:
    """Yields the reason of each failure of one kind in W&B's log."""
    for line in content.splitlines():
        if start.encode() in line:
            entry = json.loads(line)
            yield entry.get("error") or entry["msg"].removeprefix(start)
