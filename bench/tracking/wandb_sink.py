"""Weights & Biases as a sink.  It receives what the records receive; losing it loses nothing, and it never fails a run.

A run is one W&B run.  If its method repeats another one, as searches do, each trial is a further W&B run of the same
group, except for the intervals of a population, of which there are thousands.
"""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.records import Outcome, Run, title_of
from bench.records.json_files import finite
from bench.records.names import clipped
from bench.tracking.wandb_settings import keep_to_folder, without_files

TIMEOUT_SECONDS = 20
LONGEST_NAME = LONGEST_GROUP = 128
LONGEST_TAG = 64
"""What W&B takes, in characters."""
NOT_FINITE = ("NaN", "Infinity", "-Infinity", None)
"""How W&B's files write numbers that are not finite."""
WITHOUT_TRIALS = ("population", "transplant")
"""Families of methods that repeat another one, but not in trials that are worth a W&B run each."""
unreachable = threading.Event()
"""Set once W&B has failed online: later runs of this process are kept offline, so that they do not wait for it again."""
log = logging.getLogger("oho-bench")


class NoSink:
    """A sink for disabled tracking."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Ignores the record."""

    def close(self, outcome: Outcome) -> None:
        """Ignores the outcome."""


class WandbSink:
    """A logger of one run, with counted seconds as the x-axis.

    Any error ends the logging with one warning and sets `failed`.  `begin` is `begin_run` with its folder filled in, or a
    stand-in; `offline` replaces it if W&B cannot be reached.
    """

    def __init__(
        self, run_id: str, spec: Mapping[str, Any], *, begin: Callable[..., Any], project: str, experiment: str,
        offline: Callable[..., Any] | None = None,
    ):  # fmt: skip
        self._spec, self._begin, self._project, self._offline = spec, begin, project, offline
        self._run_id, self._experiment = run_id, experiment
        self._has_trials = _has_trials(spec["method"])
        self._rows: list[dict[str, float]] = []
        self._run: Any = None
        self.failed = False
        reason = self._attempt(self._open)
        if reason and offline:
            unreachable.set()
            log.warning("W&B cannot be reached (%s); runs are kept offline until `oho-bench sync` uploads them", reason)
            self._begin, self._offline = offline, None
            reason = self._attempt(self._open)
        self._judge(reason)

    def record(self, record: Mapping[str, Any]) -> None:
        """Logs an evaluation; a finished trial becomes a W&B run of its own."""
        if record["kind"] == "trial" and not self._has_trials:
            return
        log = {
            "trial": self._log_trial, "incumbent": self._log_incumbent, "evaluation": self._log_evaluation,
            "shock": self._log_shock,
        }  # fmt: skip
        self._guard(log[record["kind"]], finite(record))

    def close(self, outcome: Outcome) -> None:
        """Writes the summary and ends the W&B run."""
        self._guard(self._finish, outcome)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs `action`; after an error or a hang the sink stays silent."""
        if not self.failed:
            self._judge(self._attempt(action, *arguments))

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> str:
        """Runs `action` for at most `TIMEOUT_SECONDS`; returns why it failed, or an empty text."""
        error: list[BaseException] = []

        def attempt() -> None:
            try:
                action(*arguments)
            except BaseException as caught:  # whatever a tracker raises, the run goes on
                error.append(caught)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(TIMEOUT_SECONDS)
        if error:
            return f"{type(error[0]).__name__}: {' '.join(str(error[0]).split())}"
        return f"no answer in {TIMEOUT_SECONDS} s" if thread.is_alive() else ""

    def _judge(self, reason: str) -> None:
        if not reason:
            return
        self.failed = True
        later = "; later runs are kept offline" if self._offline else ""
        if self._offline:
            unreachable.set()
        log.warning("run %s is no longer tracked by W&B (%s); its records are complete%s", self._run_id, reason, later)

    def _start(self, *, name: str, job_type: str, config: Mapping[str, Any], part: str = "") -> Any:
        method, task = self._spec["method"]["name"], self._spec["task"]["name"]
        return self._begin(
            part=part,
            project=self._project,
            group=clipped(f"{self._experiment}-{self._run_id if self._has_trials else method}", LONGEST_GROUP),
            job_type=job_type,
            name=clipped(name, LONGEST_NAME),
            tags=[clipped(tag, LONGEST_TAG) for tag in dict.fromkeys((self._experiment, task, method))],
            config=dict(config),
        )

    def _open(self) -> None:
        name = f"{title_of(self._spec)}, seed {self._spec['seed']}"
        config = {**self._spec, "run": self._run_id, "experiment": self._experiment}
        begin = self._begin
        run = self._start(name=name, job_type="search" if self._has_trials else "run", config=config)
        if self._begin is begin:  # otherwise the answer came too late
            self._run = run

    def _log_evaluation(self, record: Mapping[str, Any]) -> None:
        row = {key: value for key, value in record.items() if isinstance(value, int | float)}
        for name, values in record["hyper"].items():
            for index, value in enumerate(values):
                row[f"hyper/{name}" if len(values) == 1 else f"hyper/{name}/{index}"] = value
        row |= {f"scalars/{name}": value for name, value in record["scalars"].items()}
        _log(self._run, row)
        self._rows.append(row)

    def _log_incumbent(self, record: Mapping[str, Any]) -> None:
        row = {f"incumbent/{key}": record[key] for key in ("trial", "validation_loss", "test_loss", "test_error")}
        _log(self._run, {**row, "counted_seconds": record["counted_seconds"], "step": record["step"]})

    def _log_shock(self, record: Mapping[str, Any]) -> None:
        _log(self._run, {"shock": record["event"], "counted_seconds": record["counted_seconds"], "step": record["step"]})

    def _log_trial(self, record: Mapping[str, Any]) -> None:
        trial = record["trial"]
        config = {"run": self._run_id, "trial": trial, "seed": self._spec["seed"], **record["hyper"]}
        run = self._start(name=f"{self._run_id} trial {trial}", job_type="trial", config=config, part=f"-{trial}")
        for row in self._rows:
            if row["trial"] == trial:
                _log(run, row)
        self._rows = [row for row in self._rows if row["trial"] > trial]
        summary = {key: record[key] for key in ("validation_loss", "steps", "status", "counted_seconds")}
        _log(run, {"counted_seconds": record["counted_seconds"], "objective": record["validation_loss"]})
        run.summary.update(summary)
        run.finish()

    def _finish(self, outcome: Outcome) -> None:
        self._run.summary.update({"status": str(outcome.status), "counted_seconds": outcome.counted_seconds})
        if outcome.disturbed_because:
            self._run.summary["disturbed_because"] = "; ".join(outcome.disturbed_because)
        self._run.summary.update({f"seconds/{name}": value for name, value in outcome.accounts.items()})
        self._run.summary.update({f"environment/{name}": value for name, value in outcome.environment.items()})
        self._run.finish(exit_code=0 if outcome.status.is_result else 1)


def _has_trials(method: Mapping[str, Any]) -> bool:
    """Returns whether a method's trials are W&B runs, whatever family a user's own search is of."""
    family = method.get("family") or method["name"]  # older specs have no family; these two are called like theirs
    return method.get("over") is not None and family not in WITHOUT_TRIALS


def _log(run: Any, row: Mapping[str, Any]) -> None:
    """Logs one row without the values that are not finite, as in the records."""
    run.log({key: value for key, value in row.items() if value is not None})


def begin_run(folder: Path, *, mode: str, identity: str | None = None, part: str = "", **fields: Any) -> Any:
    """Begins a W&B run with its files in the folder.  `fields` are options of `wandb.init`.

    If there is an identity, the W&B id is `identity` followed by `part`, otherwise it is drawn here, so that nothing else
    names the run.  W&B itself would record user, host and paths; what a reader needs to know of the machine is in the
    outcome's environment, which goes into the summary.
    """
    keep_to_folder(folder)
    import wandb

    without_files(wandb.Settings)
    run = wandb.init(
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        id=f"{identity}{part}" if identity else secrets.token_hex(8),
        settings=wandb.Settings(
            reinit="create_new", console="off", disable_git=True, x_disable_stats=True, silent=True,
            x_save_requirements=False, disable_code=True, init_timeout=TIMEOUT_SECONDS,
            x_disable_machine_info=True,
        ),
        **fields,
    )  # fmt: skip
    run.define_metric("counted_seconds", hidden=True)
    run.define_metric("*", step_metric="counted_seconds")
    return run


def open_sink(run_id: str, spec: Mapping[str, Any], folder: Path, *, mode: str, project: str, experiment: str):
    """Returns the sink that `tracking.mode` asks for."""
    if mode == "disabled":
        return NoSink()
    offline = partial(begin_run, folder, mode="offline")
    if mode == "offline" or unreachable.is_set():
        return WandbSink(run_id, spec, begin=offline, project=project, experiment=experiment)
    online = partial(begin_run, folder, mode=mode)
    return WandbSink(run_id, spec, begin=online, project=project, experiment=experiment, offline=offline)


@dataclass
class Transcript:
    """A stand-in for a W&B run that keeps everything it receives."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self.rows.append(dict(row))

    def finish(self, exit_code: int = 0) -> None:
        """Does nothing."""


def replay(run: Run, begin: Callable[..., Any], *, project: str, experiment: str) -> bool:
    """Sends an ended run to a new sink, as it was sent to its own; returns whether the sink took everything."""
    sink = WandbSink(run.id, run.spec, begin=begin, project=project, experiment=experiment)
    for record in run.records:
        sink.record(record)
    if run.outcome is not None:
        sink.close(run.outcome)
    return not sink.failed


def transcripts(run: Run, *, experiment: str) -> list[Transcript] | None:
    """Returns what an ended run's sink logs, one transcript per W&B run; None if the records lack what it logs."""
    kept: list[Transcript] = []

    def begin(name: str, **fields: Any) -> Transcript:
        kept.append(Transcript(name))
        return kept[-1]

    return kept if replay(run, begin, project="", experiment=experiment) else None


def read_back(path: Path) -> Transcript | None:
    """Returns what one of W&B's files holds, or None if the run's end is missing.

    W&B's own columns and non-finite values are left out.  This does what `wandb leet inspect` does, without its half second
    of Python.
    """
    from wandb.util import get_core_path

    place = ["--run-file", str(path.resolve()), str(path.resolve().parents[1])]
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *place]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS)
    held, ended = Transcript(""), False
    for line in said.stdout.splitlines():
        content = json.loads(line, parse_int=float)  # W&B writes 1e18 as an integer
        held.name = content.get("run", {}).get("display_name", held.name)
        ended |= "exit" in content
        if "history" in content:
            items = content["history"]["item"].items()
            held.log({key: value for key, value in items if not key.startswith("_") and value not in NOT_FINITE})
    return held if ended else None


def _is_own(path: Path) -> bool:
    """Returns whether one of W&B's files is a regular file in the folder itself: W&B's programs would follow a link."""
    return path.is_file() and not any(each.is_symlink() for each in (path, *path.parents[:2]))


def agreeing(folder: Path, expected: Sequence[Transcript], only: str = "*") -> list[Path]:
    """Returns W&B's files with the expected rows, one per W&B run, or none if any is missing.

    `only` is a pattern of W&B ids.  Links and what is no regular file are passed over, and so are files whose id other runs
    of the results folder have, too: W&B would mix those runs.
    """
    found: dict[str, Path] = {}
    rows = {transcript.name: transcript.rows for transcript in expected}
    for path in sorted(folder.glob(f"wandb/*run-*/run-{only}.wandb")):
        shared = [other for other in folder.parent.glob(f"*/wandb/*run-*/{path.name}") if _is_own(other)]
        held = read_back(path) if shared == [path] else None
        if held and held.name in rows and held.rows == rows[held.name]:
            found[held.name] = path
    return [found[name] for name in rows] if found.keys() == rows.keys() else []
