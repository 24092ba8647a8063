"""Begins W&B runs, each under an id that stays the same when its run is continued."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from bench.records.errors import RecordError
from bench.records.json_files import read_object, write_json
from bench.records.names import clipped
from bench.records.wandb_names import COUNTED_SECONDS, EPOCH, STEP, TRIALS, USED, WALL_SECONDS
from bench.tracking import attempts
from bench.tracking.wandb_settings import keep_to_folder, online_patience, without_files
from bench.tracking.wandb_words import in_own_words, refusals_raised

IDENTITY_FILE = "wandb.json"
NAME = r"[\w-]+"
"""What the ids of sweeps, and of the runs that these make, consist of."""
LONGEST_ALERT = 63
"""What W&B takes of an alert's title, in characters."""


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

    def alert(self, title: str, text: str) -> None:
        """Has the user told at once, by mail or however they chose, if the run is online."""
        ...

    @property
    def unwritten(self) -> int:
        """How many rows W&B already has after those that were logged so far."""
        ...


def bound_table(run: Any, key: str, row: int, columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> Any:
    """Returns a table to be logged under the key in that row of W&B's own run.

    It is bound to the run before it is logged: otherwise W&B would keep it as an artifact as well, whose file it names by
    an absolute path, which is private and breaks when the results folder moves.
    """
    import wandb

    table = wandb.Table(columns=list(columns), data=[list(line) for line in lines], allow_mixed_types=True)
    table.bind_to_run(run, key, row)
    return table


class WandbRun:
    """A run of the real W&B.  Rows that it has from an earlier process are not sent again."""

    def __init__(self, run: Any):
        self.run, self.rows = run, 0

    @property
    def unwritten(self) -> int:
        """How many rows W&B already has after those that were logged so far."""
        return max(0, self.run.starting_step - self.rows)

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        if not self.unwritten:
            self.run.log(dict(row))
        self.rows += 1

    def log_table(self, row: Mapping[str, Any], columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Adds a row with the table of a search's trials."""
        if self.unwritten:
            self.rows += 1
        else:
            self.log({**row, TRIALS: bound_table(self.run, TRIALS, self.rows, columns, lines)})

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration."""
        self.run.config.update(dict(values), allow_val_change=True)  # another commit may continue a run

    def finish(self, summary: Mapping[str, Any], tags: Sequence[str] = (), *, exit_code: int = 0) -> None:
        """Adds to the summary and the tags, and ends the run."""
        self.run.summary.update(dict(summary))
        if tags:
            self.run.tags = tuple(dict.fromkeys((*self.run.tags, *tags)))
        with refusals_raised(self.run):
            self.run.finish(exit_code=exit_code)

    def alert(self, title: str, text: str) -> None:
        """Has the user told at once, by mail or however they chose, if the run is online.

        An alert that was kept offline would come when it is too late to act.  An error is ignored: the end of the run is
        still to be sent.
        """
        if not self.run.offline:
            with suppress(Exception):
                self.run.alert(clipped(title, LONGEST_ALERT), text, level="WARN")


def known_identity(folder: Path, run_id: str) -> str | None:
    """Returns the W&B id that the run in a folder has had so far, if any."""
    content = _identity_content(folder)
    known = content.get("id")
    ours = NAME if "sweep" in content else rf"{re.escape(run_id)}-[0-9a-f]{{8}}"
    return known if isinstance(known, str) and re.fullmatch(ours, known) else None


def known_experiment(folder: Path) -> str | None:
    """Returns the experiment as part of which the run in a folder was tracked, if that is known."""
    return _identity_content(folder).get("experiment")


def _identity_content(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / IDENTITY_FILE, "")
    except RecordError:
        return {}


def identity_in(folder: Path, run_id: str, experiment: str) -> str:
    """Returns the W&B id of the run in a folder, drawn when it is asked for first and kept in a file with the experiment.

    It begins with the run's id, and continues with digits of its own, since the same run may have been made in other
    results folders, and W&B would mix the two.  A trial of a sweep keeps the id that the sweep has given it.
    """
    known = known_identity(folder, run_id)
    identity = known or f"{run_id}-{secrets.token_hex(4)}"
    content = _identity_content(folder) if known else {}
    if known is None or content.get("experiment") != experiment:
        with suppress(OSError):  # a tracker never fails a run
            # Not flushed: after a loss of power, another id is drawn at worst.
            write_json(folder / IDENTITY_FILE, {**content, "id": identity, "experiment": experiment}, durable=False)
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
    """Begins a W&B run of counted seconds, or continues it if it is online.

    The W&B id is `identity` followed by `part`, and `axis` is the default x-axis.  For the rest see `plain_run`.
    """
    settings = {"sweep_id": _sweep_of(folder)}
    run = plain_run(folder, mode=mode, identity=f"{identity}{part}", settings=settings, **fields)
    for name in (COUNTED_SECONDS, WALL_SECONDS, STEP, EPOCH, USED):
        run.define_metric(name, hidden=True)  # axes are no charts
    run.define_metric("*", step_metric=axis)
    return WandbRun(run)


def plain_run(folder: Path, *, mode: str, identity: str, settings: Mapping[str, Any] = MappingProxyType({}), **fields: Any
              ) -> Any:  # fmt: skip
    """Returns W&B's own run, begun with its files in the folder or, if it is online, continued.

    `settings` are further ones of `wandb.Settings`, `fields` those of `wandb.init`.  W&B itself would record user, host and
    paths; what a reader needs to know of the machine is in the outcome's environment, which goes into the summary.
    """
    keep_to_folder(folder)
    import wandb

    without_files(wandb.Settings)
    with in_own_words():
        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            dir=str(folder),
            id=identity,
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(
                reinit="create_new", console="off", disable_git=True, x_disable_stats=True, silent=True,
                x_save_requirements=False, disable_code=True, init_timeout=attempts.TIMEOUT_SECONDS,
                x_disable_machine_info=True, host="", program="oho-bench", **online_patience(), **settings,
            ),
            **fields,
        )  # fmt: skip
