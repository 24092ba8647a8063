"""What a job of Slurm does, through `submitit`: it makes its run, and joins the queue again when its time is over."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.command.node_task import work
from bench.command.remote_run import Result
from bench.command.scheduling import RETRY_SECONDS, TAKEN_SECONDS, End
from bench.command.store import Store
from bench.records import Status

TIME_IS_OVER = "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
"""The signal that Slurm sends before a job's time is over, as `submitit` asks it to."""


class RunInJob:
    """A function of an order, as `submitit` pickles it.  It keeps nothing: a run continues from its newest checkpoint."""

    def __call__(self, order: Mapping[str, Any]) -> Result:
        """Makes the run of an order, or leaves the process to join the queue again."""
        number = getattr(signal, TIME_IS_OVER)
        before = _steps(order)
        result = _made({**order, "signals": (number,)})
        if result.end is End.STOPPED and result.signal == number:
            if _steps(order) <= before:
                return Result(End.REFUSED, "did not get any further within a job's time; allow more --job-minutes")
            signal.raise_signal(number)  # for submitit, which calls `checkpoint`
        return result

    def checkpoint(self, order: Mapping[str, Any]) -> Any:
        """Returns what is submitted again: the same order."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, order)


def _steps(order: Mapping[str, Any]) -> int:
    """Returns the step that the run of an order had reached when it was last stopped, or 0 if it never was."""
    place = f"{order['given'][0]['id']}/outcome.json"
    if order["storage"] is None:
        path = Path(order["root"], place)
        content = path.read_bytes() if path.exists() else None
    else:
        content = Store(order["storage"]).read(place)
    outcome = json.loads(content) if content else {}
    return outcome["steps"] if outcome.get("status") == Status.INTERRUPTED else 0


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
