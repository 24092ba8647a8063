"""A worker of `run --workers`: makes the runs and batches that its command gives it, one after another.

It is a process of its own, in a session of its own, so that a terminal's signals reach the command alone, which passes them
on.  Orders and results are pickled through a pipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench.command.remote_run import Result, make_remotely
from bench.process.orphans import die_with
from bench.process.share import begin_as_one_of
from bench.process.signals import Stopper, release_signals
from bench.records import Status
from bench.run.disturbances import is_answering


def main(descriptor: int, parent: int, watched: int, workers: int) -> None:
    """Makes what comes through the pipe `descriptor` until it is closed.

    `parent` is the command's process, `watched` the one that a user stops with Ctrl-Z; there are so many `workers`.
    """
    die_with(parent)
    release_signals()
    begin_as_one_of(workers)
    orders = Connection(descriptor)
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return
        result = make_remotely(order, Stopper(watched, tells=False))
        leaves = _has_lost_its_device(order, result)  # the pool then starts another process
        orders.send((result, leaves))
        if leaves:
            return


def _has_lost_its_device(order: Mapping[str, Any], result: Result) -> bool:
    has_failed = any(outcome.status is Status.FAILED for outcome in result.outcomes.values())
    return has_failed and not is_answering(torch.device(order["given"][0]["spec"]["device"]))
