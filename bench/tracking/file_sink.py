"""A sink for trackers that keep files in the results folder: TensorBoard, trackio.

What they are given has the names that Weights & Biases' rows have (`bench.records.wandb_names`).  A search's trials are no
runs of their own there; each is a row with its objective and the hyperparameters that it was given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from bench.records import Outcome
from bench.records.names import file_name
from bench.records.wandb_names import OBJECTIVE, OUTCOME, TRIAL_NUMBER, metric, run_name
from bench.tracking.run_sink import RunSink
from bench.tracking.wandb_content import Row, config_of, moment, summary_of

log = logging.getLogger("oho-bench")
missing: set[str] = set()
"""The trackers of which this process has said that they are not installed."""


class Tracker(Protocol):
    """A keeper of one run's rows.  A run that is continued is written anew: a new tracker replaces its older files."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """Removes what there is of the run, and begins it."""
        ...

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration, after the run's first evaluation."""
        ...

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row: numbers, histograms as W&B writes them, and texts.  It has all axes, and no value is None."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Adds how the run ended, and closes what is open."""
        ...


class FileSink(RunSink):
    """A logger of one run to a tracker.

    `name` is the tracker's, `package` the one it needs, which is also the name of our extra.
    """

    def __init__(
        self, run_id: str, spec: Mapping[str, Any], *, experiment: str, name: str, package: str,
        make: Callable[[], Tracker],
    ):  # fmt: skip
        super().__init__(run_id, spec)
        self._name, self._make = name, make
        self._tracker: Any = None
        self.failed = find_spec(package) is None
        if not self.failed:
            self._guard(self._begin, config_of(run_id, experiment, spec))
        elif name not in missing:
            missing.add(name)
            log.warning(
                "%s does not track these runs: %s is not installed (pip install 'oho-bench[%s]'); their records are"
                " complete", name, package, package,
            )  # fmt: skip

    def caught_up(self) -> None:
        """Has nothing to say: the run was begun anew, so that no row of redone work is left."""

    def _judge(self, reason: str) -> None:
        if reason:
            self.failed = True
            log.warning(
                "run %s is no longer tracked by %s (%s); its records are complete", self._run_id, self._name, reason
            )

    def _begin(self, config: Row) -> None:
        self._tracker = self._make()
        self._tracker.begin(config)

    def _configure(self, values: Row) -> None:
        self._tracker.configure(values)

    def _log(self, record: Mapping[str, Any], row: Row) -> Row:
        row = {key: value for key, value in row.items() if value is not None}
        self._tracker.log(row)
        return row

    def _log_trial(self, record: Mapping[str, Any]) -> None:
        given = {metric(f"{TRIAL_NUMBER}/{name}"): value for name, value in record["hyper"].items()}
        self._log(record, {**moment(record), OBJECTIVE: record["validation_loss"], **given})

    def _finish(self, outcome: Outcome) -> None:
        summary = summary_of(outcome, self._nonfinite)
        self._tracker.finish({key: value for key, value in summary.items() if key != OUTCOME})


def unique_name(run_id: str, spec: Mapping[str, Any]) -> str:
    """Returns what a tracker calls a run if it tells runs apart by their names alone."""
    return f"{file_name(run_name(spec))}, {run_id}"
