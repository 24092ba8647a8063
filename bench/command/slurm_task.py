"""What a job of Slurm does, through `submitit`: it makes its run, and joins the queue again when its time is over."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.command.node_task import work
from bench.command.remote_run import Result
from bench.command.scheduling import RETRY_SECONDS, TAKEN_SECONDS, End
from bench.command.store import Store
from bench.records.progress import used_in

TIME_IS_OVER = "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
"""The signal that Slurm sends before a job's time is over, as `submitit` asks it to."""

RECORDS = "records.jsonl"


class RunInJob:
    """A function of an order, as `submitit` pickles it.  It keeps nothing: a run continues from its newest checkpoint."""

    def __call__(self, order: Mapping[str, Any]) -> Result:
        """Makes the run of an order, or leaves the process to join the queue again."""
        number = getattr(signal, TIME_IS_OVER)
        before = _used(order)
        result = _made({**order, "signals": (number,)})
        if result.end is End.STOPPED and result.signal == number:
            if _used(order) <= before:
                return Result(End.REFUSED, "did not get any further within a job's time; allow more --job-minutes")
            signal.raise_signal(number)  # for submitit, which calls `checkpoint`
        return result

    def checkpoint(self, order: Mapping[str, Any]) -> Any:
        """Returns what is submitted again: the same order."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, order)


def _used(order: Mapping[str, Any]) -> float:
    """Returns how much of its budget the run of an order has used, as far as it is kept."""
    run = order["given"]["id"]
    if order["storage"] is None:
        return used_in(Path(order["root"], run))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, RECORDS).write_bytes(Store(order["storage"]).read(f"{run}/{RECORDS}") or b"")
        return used_in(Path(folder))


def _made(order: dict[str, Any]) -> Result:
    """Makes the run, waiting a while for a claim: that of a node that was lost may live a little longer than its job."""
    began = time.monotonic()
    while True:
        result = work(order)
        if isinstance(result, str):
            return Result(End.NODE_REFUSED, result)
        if result.end is not End.TAKEN or time.monotonic() - began > TAKEN_SECONDS:
            return result
        time.sleep(RETRY_SECONDS)
