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
from bench.records.json_files import finite
from bench.records.names import file_name
from bench.records.wandb_names import NONFINITE_VALUES, OBJECTIVE, OUTCOME, SHOCK, TRIAL_NUMBER, metric, run_name
from bench.tracking.attempts import attempt
from bench.tracking.wandb_content import (
    Row,
    config_of,
    drawn,
    evaluation_row,
    has_trials,
    incumbent_row,
    moment,
    nonfinite_values,
    summary_of,
)

TIMEOUT_SECONDS = 20
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


class FileSink:
    """A logger of one run to a tracker.  Any error ends the logging with one warning, and the run goes on.

    `name` is the tracker's, `package` the one it needs, which is also the name of our extra.
    """

    def __init__(
        self, run_id: str, spec: Mapping[str, Any], *, experiment: str, name: str, package: str,
        make: Callable[[], Tracker],
    ):  # fmt: skip
        self._run_id, self._spec, self._name = run_id, spec, name
        self._has_trials = has_trials(spec["method"])
        self._nonfinite, self._is_evaluated = 0, False
        self._make = make
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

    def record(self, record: Mapping[str, Any]) -> None:
        """Logs a record."""
        logs = {
            "trial": self._log_trial, "incumbent": self._log_incumbent, "evaluation": self._log_evaluation,
            "shock": self._log_shock,
        }  # fmt: skip
        self._guard(logs[record["kind"]], finite(record))

    def caught_up(self) -> None:
        """Has nothing to say: the run was begun anew, so that no row of redone work is left."""

    def close(self, outcome: Outcome) -> None:
        """Writes how the run ended."""
        self._guard(self._finish, outcome)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs `action`; after an error or a hang the sink stays silent."""
        if self.failed:
            return
        if reason := attempt(action, *arguments, seconds=TIMEOUT_SECONDS):
            self.failed, told = True, (self._run_id, self._name, reason)
            log.warning("run %s is no longer tracked by %s (%s); its records are complete", *told)

    def _begin(self, config: Row) -> None:
        self._tracker = self._make()
        self._tracker.begin(config)

    def _log(self, row: Row) -> None:
        self._tracker.log({key: value for key, value in row.items() if value is not None})

    def _log_evaluation(self, record: Mapping[str, Any]) -> None:
        if not self._is_evaluated:
            self._tracker.configure(drawn(self._spec, record) if record["step"] == 0 else {})
        self._is_evaluated = True
        self._nonfinite += nonfinite_values(record)
        self._log({**evaluation_row(record), NONFINITE_VALUES: self._nonfinite})

    def _log_incumbent(self, record: Mapping[str, Any]) -> None:
        self._log(incumbent_row(record))

    def _log_shock(self, record: Mapping[str, Any]) -> None:
        self._log({**moment(record), SHOCK: record["event"]})

    def _log_trial(self, record: Mapping[str, Any]) -> None:
        if self._has_trials:  # a population's intervals are thousands
            given = {metric(f"{TRIAL_NUMBER}/{name}"): value for name, value in record["hyper"].items()}
            self._log({**moment(record), OBJECTIVE: record["validation_loss"], **given})

    def _finish(self, outcome: Outcome) -> None:
        summary = summary_of(outcome, self._nonfinite)
        self._tracker.finish({key: value for key, value in summary.items() if key != OUTCOME})


def unique_name(run_id: str, spec: Mapping[str, Any]) -> str:
    """Returns what a tracker calls a run if it tells runs apart by their names alone."""
    return f"{file_name(run_name(spec))}, {run_id}"
