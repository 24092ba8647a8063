"""Opens the sinks of a run: what `tracking.sinks` names, and passes all of them what the records receive."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.experiment.registries import SINKS
from bench.experiment.schema import Tracking
from bench.records import Outcome
from bench.tracking.sink import Sink
from bench.tracking.wandb_sink import NoSink, WandbSink, open_sink

log = logging.getLogger("oho-bench")


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]):
        self.sinks = sinks

    def record(self, record: Mapping[str, Any]) -> None:
        """Passes a record on."""
        for sink in self.sinks:
            sink.record(record)

    def caught_up(self) -> None:
        """Passes on that the sinks have caught up."""
        for sink in self.sinks:
            sink.caught_up()

    def close(self, outcome: Outcome) -> None:
        """Passes the outcome on."""
        for sink in self.sinks:
            sink.close(outcome)


def open_sinks(
    run_id: str, spec: Mapping[str, Any], folder: Path, *, experiment: str, tracking: Tracking,
    plan: Mapping[str, Any] | None = None,
) -> Sinks:  # fmt: skip
    """Returns the sinks that `tracking.sinks` names.

    `plan` is the experiment's resolved configuration and its figures.  A sink that cannot be opened costs one warning.
    """
    opened: list[Sink] = []
    for name in dict.fromkeys(tracking.sinks):
        try:
            opened.append(SINKS[name](run_id, spec, folder, experiment=experiment, tracking=tracking, plan=plan))
        except Exception as error:  # whatever a tracker raises, the run goes on
            reason = " ".join(str(error).split())
            log.warning("run %s is not tracked by %s (%s); its records are complete", run_id, name, reason)
    return Sinks(opened)


def open_wandb(
    run_id: str, spec: Mapping[str, Any], folder: Path, *, experiment: str, tracking: Tracking,
    plan: Mapping[str, Any] | None = None,
) -> NoSink | WandbSink:  # fmt: skip
    """Returns the sink of Weights & Biases."""
    return open_sink(
        run_id, spec, folder, mode=tracking.mode_in(os.environ), project=tracking.project, experiment=experiment,
        trial_runs=tracking.trial_runs, plan=plan,
    )  # fmt: skip
