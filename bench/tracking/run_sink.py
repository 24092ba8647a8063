"""What the sinks of one run share: each record is logged in its own way, and no error of a tracker reaches the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from bench.records import Outcome
from bench.records.json_files import finite
from bench.records.wandb_names import NONFINITE_VALUES, SHOCK
from bench.tracking.attempts import attempt
from bench.tracking.wandb_content import Row, drawn, evaluation_row, has_trials, incumbent_row, moment, nonfinite_values


class RunSink(ABC):
    """A logger of one run, with the names of Weights & Biases' rows.

    Any error or hang ends the logging with one warning and sets `failed`, and the run goes on.
    """

    def __init__(self, run_id: str, spec: Mapping[str, Any]):
        self._run_id, self._spec = run_id, spec
        self._has_trials = has_trials(spec["method"])
        self._nonfinite, self._is_evaluated = 0, False
        self.failed = False

    def record(self, record: Mapping[str, Any]) -> None:
        """Logs a record; a population's intervals, which are thousands, are no trials."""
        if record["kind"] == "trial" and not self._has_trials:
            return
        logs = {
            "trial": self._log_trial, "incumbent": self._log_incumbent, "evaluation": self._log_evaluation,
            "shock": self._log_shock,
        }  # fmt: skip
        self._guard(logs[record["kind"]], finite(record))

    def close(self, outcome: Outcome) -> None:
        """Writes how the run ended."""
        self._guard(self._finish, outcome)

    def _guard(self, action: Callable[..., Any], *arguments: Any) -> None:
        """Runs `action`; after an error or a hang the sink stays silent."""
        if not self.failed:
            self._judge(attempt(action, *arguments))

    @abstractmethod
    def _judge(self, reason: str) -> None:
        """Sets `failed`, with a warning, unless the reason is empty."""

    @abstractmethod
    def _configure(self, values: Row) -> None:
        """Adds to the configuration what the first evaluation shows."""

    @abstractmethod
    def _log(self, record: Mapping[str, Any], row: Row) -> Row:
        """Logs the row of a record without its values of None, and returns it."""

    @abstractmethod
    def _log_trial(self, record: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _finish(self, outcome: Outcome) -> None: ...

    def _log_evaluation(self, record: Mapping[str, Any]) -> Row:
        if not self._is_evaluated:  # a shock at step 0 is followed by another evaluation
            self._configure(drawn(self._spec, record) if record["step"] == 0 else {})
        self._is_evaluated = True
        self._nonfinite += nonfinite_values(record)
        return self._log(record, {**evaluation_row(record), NONFINITE_VALUES: self._nonfinite})

    def _log_incumbent(self, record: Mapping[str, Any]) -> None:
        self._log(record, incumbent_row(record))

    def _log_shock(self, record: Mapping[str, Any]) -> None:
        self._log(record, {**moment(record), SHOCK: record["event"]})
