"""Begins W&B runs, each under an id that stays the same when its run is continued."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.records.errors import RecordError
from bench.records.json_files import read_object, write_json
from bench.records.wandb_names import COUNTED_SECONDS, EPOCH, STEP, TRIALS, WALL_SECONDS
from bench.tracking.wandb_settings import keep_to_folder, without_files

TIMEOUT_SECONDS = 20
IDENTITY_FILE = "wandb.json"
NAME = r"[\w-]+"
"""What the ids of sweeps, and of the runs that these make, consist of."""


class TrackedRun(Protocol):
    """What a sink needs of a W&B run, or of a stand-in."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        ...

    def log_table(self, row: Mapping[str, Any], columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Adds a row with the table of a search's trials."""
        ...

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration."""
        ...

    def finish(self, summary: Mapping[str, Any], tags: Sequence[str] = (), *, exit_code: int = 0) -> None:
        """Adds to the summary and the tags, and ends the run."""
        ...

    @property
    def unwritten(self) -> int:
        """Returns how many rows W&B already has after those that were logged so far."""
        ...


class WandbRun:
    """A run of the real W&B.  Rows that it has from an earlier process are not sent again."""

    def __init__(self, run: Any):
        self.run, self.rows = run, 0

    @property
    def unwritten(self) -> int:
        """Returns how many rows W&B already has after those that were logged so far."""
        return max(0, self.run.starting_step - self.rows)

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        if not self.unwritten:
            self.run.log(dict(row))
        self.rows += 1

    def log_table(self, row: Mapping[str, Any], columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Adds a row with the table of a search's trials.

        The table is bound to the run before it is logged: otherwise W&B would keep it as an artifact as well, whose file it
        names by an absolute path, which is private and breaks when the results folder moves.
        """
        import wandb

        if self.unwritten:
            self.rows += 1
            return
        table = wandb.Table(columns=list(columns), data=[list(line) for line in lines], allow_mixed_types=True)
        table.bind_to_run(self.run, TRIALS, self.rows)
        self.log({**row, TRIALS: table})

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration."""
        self.run.config.update(dict(values), allow_val_change=True)  # another commit may continue a run

    def finish(self, summary: Mapping[str, Any], tags: Sequence[str] = (), *, exit_code: int = 0) -> None:
        """Adds to the summary and the tags, and ends the run."""
        self.run.summary.update(dict(summary))
        if tags:
            self.run.tags = tuple(dict.fromkeys((*self.run.tags, *tags)))
        self.run.finish(exit_code=exit_code)


def known_identity(folder: Path, run_id: str) -> str | None:
    """Returns the W&B id that the run in a folder has had so far, if any."""
    content = _identity_content(folder)
    known = content.get("id")
    ours = NAME if "sweep" in content else rf"{re.escape(run_id)}-[0-9a-f]{{8}}"
    return known if isinstance(known, str) and re.fullmatch(ours, known) else None


def _identity_content(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / IDENTITY_FILE, "")
    except RecordError:
        return {}


def identity_in(folder: Path, run_id: str) -> str:
    """Returns the W&B id of the run in a folder, drawn when it is asked for first and kept in a file.

    It begins with the run's id, and continues with digits of its own, since the same run may have been made in other
    results folders, and W&B would mix the two.
    """
    if known := known_identity(folder, run_id):
        return known
    identity = f"{run_id}-{secrets.token_hex(4)}"
    with suppress(OSError):  # a tracker never fails a run
        write_json(folder / IDENTITY_FILE, {"id": identity})
    return identity


class Place(NamedTuple):
    """The W&B run that a sweep has made for a trial, its sweep, and their project if W&B's agent names it."""

    run: str
    sweep: str
    project: str | None = None


def join_sweep(folder: Path, place: Place) -> None:
    """Makes the run in a folder, from now on, the W&B run that a sweep has made for it."""
    with suppress(OSError):  # a tracker never fails a run
        write_json(folder / IDENTITY_FILE, {"id": place.run, "sweep": place.sweep})


def _sweep_of(folder: Path) -> str | None:
    sweep = _identity_content(folder).get("sweep")
    return sweep if isinstance(sweep, str) and re.fullmatch(NAME, sweep) else None


def forget_identity(folder: Path) -> None:
    """Makes a run that begins anew after it has ended another one to W&B, which keeps the rows of the old one."""
    with suppress(OSError):
        (folder / IDENTITY_FILE).unlink()


def begin_run(
    folder: Path, *, mode: str, identity: str, axis: str = COUNTED_SECONDS, part: str = "", **fields: Any
) -> WandbRun:  # fmt: skip
    """Begins a W&B run with its files in the folder, or continues it if it is online.  `fields` are those of `wandb.init`.

    The W&B id is `identity` followed by `part`, and `axis` is the default x-axis.  W&B itself would record user, host and
    paths; what a reader needs to know of the machine is in the outcome's environment, which goes into the summary.
    """
    keep_to_folder(folder)
    import wandb

    without_files(wandb.Settings)
    run = wandb.init(
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        id=f"{identity}{part}",
        resume=None if mode == "offline" else "allow",
        settings=wandb.Settings(
            reinit="create_new", console="off", disable_git=True, x_disable_stats=True, silent=True,
            x_save_requirements=False, disable_code=True, init_timeout=TIMEOUT_SECONDS,
            x_disable_machine_info=True, host="", program="oho-bench", sweep_id=_sweep_of(folder),
        ),
        **fields,
    )  # fmt: skip
    for name in (COUNTED_SECONDS, WALL_SECONDS, STEP, EPOCH):
        run.define_metric(name, hidden=True)  # axes are no charts
    run.define_metric("*", step_metric=axis)
    return WandbRun(run)
