"""What W&B's files hold, and what they should hold by the records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.records import Run
from bench.records.wandb_names import TRIAL_RUNS, TRIALS
from bench.tracking.attempts import TIMEOUT_SECONDS
from bench.tracking.wandb_content import flat
from bench.tracking.wandb_sink import WandbSink

NOT_FINITE = ("NaN", "Infinity", "-Infinity", None)
"""How W&B's files write numbers that are not finite."""


@dataclass
class Transcript:
    """A stand-in for a W&B run that keeps everything it receives, rows as W&B's files hold them.

    Of a table, W&B keeps a file; its row keeps the axes alone.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    entity: str = ""
    project: str = ""
    unwritten: int = 0

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self.rows.append(dict(flat(row)))

    def log_table(self, row: Mapping[str, Any], columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Adds a row without its table."""
        self.log(row)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration."""
        self.config |= values

    def finish(self, summary: Mapping[str, Any], tags: Sequence[str] = (), *, exit_code: int = 0) -> None:
        """Adds to the summary and the tags."""
        self.summary |= summary
        self.tags += tags

    def is_for(self, entity: str | None, project: str | None) -> bool:
        """Returns whether the run was begun for this entity and project; None stands for any."""
        return entity in (None, self.entity) and project in (None, self.project)

    def alert(self, title: str, text: str) -> None:
        """Keeps none: alerts are no part of a run."""


def replay(
    run: Run, begin: Callable[..., Any], *, project: str, experiment: str, trial_runs: int = TRIAL_RUNS,
    plan: Mapping[str, Any] | None = None,
) -> bool:  # fmt: skip
    """Sends an ended run to a new sink, as it was sent to its own; returns whether the sink took everything."""
    sink = WandbSink(
        run.id, run.spec, begin=begin, project=project, experiment=experiment, trial_runs=trial_runs, plan=plan
    )
    for record in run.records:
        sink.record(record)
    if run.outcome is not None:
        sink.close(run.outcome)
    return not sink.failed


def transcripts(
    run: Run, *, experiment: str, trial_runs: int = TRIAL_RUNS, plan: Mapping[str, Any] | None = None
) -> list[Transcript] | None:
    """Returns what an ended run's sink logs, one transcript per W&B run; None if the records lack what it logs."""
    kept: list[Transcript] = []

    def begin(name: str, config: Mapping[str, Any], tags: Sequence[str], **fields: Any) -> Transcript:
        kept.append(Transcript(name, config=dict(config), tags=list(tags)))
        return kept[-1]

    return kept if replay(run, begin, project="", experiment=experiment, trial_runs=trial_runs, plan=plan) else None


def read_back(path: Path) -> Transcript | None:
    """Returns what one of W&B's files holds, or None if the run's end is missing.

    W&B's own columns, non-finite values and where the table lies are left out.  This does what `wandb leet inspect` does,
    without its half second of Python.
    """
    from wandb.util import get_core_path

    place = ["--run-file", str(path.resolve()), str(path.resolve().parents[1])]
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *place]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS)
    held, ended = Transcript(""), False
    for line in said.stdout.splitlines():
        content = json.loads(line, parse_int=float)  # W&B writes 1e18 as an integer
        about = content.get("run", {})
        held.name = about.get("display_name", held.name)
        held.tags = about.get("tags", held.tags)
        held.entity, held.project = about.get("entity", held.entity), about.get("project", held.project)
        held.config |= about.get("config", {}).get("update", {}) | content.get("config", {}).get("update", {})
        held.summary |= content.get("summary", {}).get("update", {})
        ended |= "exit" in content
        if "history" in content:
            items = content["history"]["item"].items()
            held.log({key: value for key, value in items if not _is_own_column(key) and value not in NOT_FINITE})
    return held if ended else None


def _is_own_column(key: str) -> bool:
    return key.startswith(("_", f"{TRIALS}."))


def is_own(path: Path) -> bool:
    """Returns whether one of W&B's files is a regular file in the folder itself: W&B's programs would follow a link."""
    return path.is_file() and not any(each.is_symlink() for each in (path, *path.parents[:2]))


def agreeing(folder: Path, expected: Sequence[Transcript], only: str = "*") -> list[Path]:
    """Returns W&B's files with the expected rows and names, one per W&B run, or none if any is missing.

    `only` is a pattern of W&B ids.  Files of runs that were online are passed over: uploading one would continue its W&B
    run, and so add all rows once more.  Links and what is no regular file are passed over, and so are files whose id other
    runs of the results folder have, too: W&B would mix those runs.
    """
    found: dict[str, Path] = {}
    wanted = {transcript.name: _telling(transcript) for transcript in expected}
    for path in sorted(folder.glob(f"wandb/offline-run-*/run-{only}.wandb")):
        others = folder.parent.glob(f"*/wandb/*run-*/{path.name}")
        shared = any(is_own(other) and other.parents[2] != folder for other in others)
        held = read_back(path) if is_own(path) and not shared else None
        if held and held.name in wanted and _telling(held) == wanted[held.name]:
            found[held.name] = path
    return [found[name] for name in wanted] if found.keys() == wanted.keys() else []


def _telling(transcript: Transcript) -> list[Any]:
    """Returns what W&B's file of a run must agree in: its rows, and by what dashboards find it."""
    return [transcript.rows, *(transcript.config.get(key) for key in ("experiment", "label", "family"))]
