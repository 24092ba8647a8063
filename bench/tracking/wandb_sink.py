"""Weights & Biases as a sink.  It receives what the records receive; losing it loses nothing, and it never fails a run.

A run is one W&B run, also after it was stopped and continued.  If its method repeats another one, as searches do, each of
the first trials is a further W&B run of the same group, and all of them are lines of a table in the search's own; the
intervals of a population, of which there are thousands, are neither.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.records import Outcome, Status
from bench.records.json_files import finite
from bench.records.names import clipped
from bench.records.wandb_names import (
    LONGEST_TAG,
    OBJECTIVE,
    PLAN,
    RECORDS,
    RUN,
    SEARCH,
    STATUS,
    TRIAL,
    TRIAL_RUNS,
    axis_of,
    group_of,
    run_name,
    trial_name,
)
from bench.tracking.attempts import attempt
from bench.tracking.run_sink import RunSink
from bench.tracking.wandb_content import (
    Row,
    alert_of,
    as_text,
    config_of,
    moment,
    summary_of,
    tags_of,
    trial_config,
    trial_table,
)
from bench.tracking.wandb_runs import TrackedRun, begin_run, identity_in
from bench.tracking.wandb_words import why_unusable

unreachable = threading.Event()
"""Set once W&B has failed online: later runs of this process are kept offline, so that they do not wait for it again."""
log = logging.getLogger("oho-bench")


class NoSink:
    """A sink for tracking that is disabled or cannot be."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Ignores the record."""

    def caught_up(self) -> None:
        """Has nothing to catch up with."""

    def close(self, outcome: Outcome) -> None:
        """Ignores the outcome."""


class WandbSink(RunSink):
    """A logger of one run, with counted seconds as the x-axis.

    `begin` is `begin_run` with its folder filled in, or a stand-in; `offline` replaces it if W&B cannot be reached.
    """

    def __init__(
        self, run_id: str, spec: Mapping[str, Any], *, begin: Callable[..., TrackedRun], project: str, experiment: str,
        offline: Callable[..., TrackedRun] | None = None, trial_runs: int = TRIAL_RUNS,
        plan: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        super().__init__(run_id, spec)
        self._begin, self._project, self._offline = begin, project, offline
        self._experiment, self._trial_runs = experiment, trial_runs
        self._config = config_of(run_id, experiment, spec)
        self._plan = {PLAN: as_text(plan)} if plan else {}
        self._unsent: list[str] = []
        """The lines of the records since the last row, which go with the next one."""
        self._rows: list[Row] = []
        """Rows of the trial in progress, which its own W&B run will get."""
        self._trials: list[Mapping[str, Any]] = []
        self._last: Row = {}
        """Where the last record stands on all axes."""
        self._run: Any = None
        reason = attempt(self._open)
        if reason and offline:
            unreachable.set()
            log.warning("W&B cannot be reached (%s); runs are kept offline until `oho-bench sync` uploads them", reason)
            self._begin, self._offline = offline, None
            reason = attempt(self._open)
        self._judge(reason)

    def record(self, record: Mapping[str, Any]) -> None:
        """Logs a record; a finished trial becomes a W&B run of its own."""
        if not self.failed:
            self._unsent.append(json.dumps(finite(record)))
            super().record(record)

    def caught_up(self) -> None:
        """Says what W&B has of the work after the last checkpoint, which is redone now: it cannot take rows back."""
        rows = 0 if self.failed else self._run.unwritten
        if rows:
            what = "1 row" if rows == 1 else f"{rows} rows"
            then = "keeps it as it was until `oho-bench sync` replaces the history"
            log.warning("run %s: W&B already has %s of the work that is redone, and %s", self._run_id, what, then)

    def _judge(self, reason: str) -> None:
        if not reason:
            return
        self.failed = True
        later = "; later runs are kept offline" if self._offline else ""
        if self._offline:
            unreachable.set()
        log.warning("run %s is no longer tracked by W&B (%s); its records are complete%s", self._run_id, reason, later)

    def _start(self, *, name: str, job_type: str, config: Mapping[str, Any], part: str = "") -> TrackedRun:
        method, task = self._spec["method"]["name"], self._spec["task"]["name"]
        return self._begin(
            part=part,
            project=self._project,
            group=group_of(self._experiment, self._spec),
            job_type=job_type,
            name=name,
            tags=[clipped(tag, LONGEST_TAG) for tag in dict.fromkeys((self._experiment, task, method))],
            config=dict(config),
        )

    def _open(self) -> None:
        begin, job_type = self._begin, SEARCH if self._has_trials else RUN
        run = self._start(name=run_name(self._spec), job_type=job_type, config={**self._config, **self._plan})
        if self._begin is begin:  # otherwise the answer came too late
            self._run = run

    def _log(self, record: Mapping[str, Any], row: Row) -> Row:
        """Logs one row without the values that are not finite, as in the records, and returns it."""
        self._last = moment(record)
        row = {key: value for key, value in row.items() if value is not None}
        self._run.log({**row, RECORDS: self._sent()})
        return row

    def _sent(self) -> str:
        """Returns the lines of the records that the next row takes along."""
        lines, self._unsent = "\n".join(self._unsent), []
        return lines

    def _configure(self, values: Row) -> None:
        if values:
            self._run.configure(values)

    def _log_evaluation(self, record: Mapping[str, Any]) -> Row:
        row = super()._log_evaluation(record)
        if self._has_trials:
            self._rows.append(row)
        return row

    def _log_trial(self, record: Mapping[str, Any]) -> None:
        trial = record["trial"]
        rows = [row for row in self._rows if row["trial"] == trial]
        self._rows = [row for row in self._rows if row["trial"] > trial]
        self._trials.append(record)
        self._last = moment(record)
        if trial >= self._trial_runs:
            return
        config = trial_config(record, self._config, self._spec["method"])
        run = self._start(name=trial_name(self._spec, trial), job_type=TRIAL, config=config, part=f"-{trial}")
        for row in rows:
            run.log(row)
        objective = {OBJECTIVE: record["validation_loss"], "steps": record["steps"]}
        run.log({key: value for key, value in {**moment(record), **objective}.items() if value is not None})
        run.finish({STATUS: record["status"]})

    def _finish(self, outcome: Outcome) -> None:
        if outcome.status is not Status.INTERRUPTED:
            rest = {RECORDS: self._sent()} if self._unsent else {}
            if self._trials:
                self._run.log_table({**self._last, **rest}, *trial_table(self._trials))
            elif rest:
                self._run.log({**self._last, **rest})
        if "commit" in outcome.environment:
            self._run.configure({"commit": outcome.environment["commit"]})
        if message := alert_of(outcome, run_name(self._spec), self._experiment):
            self._run.alert(*message)
        code = 0 if outcome.status.is_result else 1
        self._run.finish(summary_of(outcome, self._nonfinite), tags_of(outcome), exit_code=code)


@cache
def _warn_once(reason: str) -> None:
    log.warning("W&B cannot be used (%s); the records are complete, and `oho-bench sync` can upload them later", reason)


def open_sink(
    run_id: str, spec: Mapping[str, Any], folder: Path, *, mode: str, project: str, experiment: str,
    trial_runs: int = TRIAL_RUNS, plan: Mapping[str, Any] | None = None,
) -> NoSink | WandbSink:  # fmt: skip
    """Returns the sink that `tracking.mode` asks for."""
    if mode == "disabled":
        return NoSink()
    if reason := why_unusable():
        _warn_once(reason)
        return NoSink()
    sink = partial(WandbSink, run_id, spec, project=project, experiment=experiment, trial_runs=trial_runs, plan=plan)
    identity = identity_in(folder, run_id, experiment)
    begin = partial(begin_run, folder, identity=identity, axis=axis_of(spec))
    if mode == "offline" or unreachable.is_set():
        return sink(begin=partial(begin, mode="offline"))
    offline = partial(begin, mode="offline", identity=f"offline-{identity}")  # an attempt that hangs still has the other id
    return sink(begin=partial(begin, mode=mode), offline=offline)
