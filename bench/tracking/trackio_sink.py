"""trackio as a sink: a data base in `DIR/trackio`, which `TRACKIO_DIR=DIR/trackio trackio show` opens.

Rows go straight into trackio's storage.  Its `init` would start threads, print, and look for a Space to send them to; so
nothing listens here and nothing leaves the machine.  What trackio shows as time is counted seconds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiment.schema import Tracking
from bench.records.files import check_no_link
from bench.records.wandb_names import COUNTED_SECONDS, STEP, group_of
from bench.tracking.file_sink import FileSink, unique_name

STORING_SECONDS = 1.0
"""The time between two writes, which cost some 20 ms each."""


class TrackioRun:
    """One run of a project in trackio's storage, under its name and our run's id."""

    def __init__(self, folder: Path, *, project: str, name: str, run_id: str, group: str):
        self._folder, self._project, self._name, self._run_id, self._group = folder, project, name, run_id, group
        self._config: dict[str, Any] = {}
        self._waiting: list[dict[str, Any]] = []
        """Rows that are not stored yet."""
        self._last: dict[str, Any] = {}
        self._began, self._rows, self._stored = datetime.now(UTC), 0, -math.inf

    def begin(self, config: Mapping[str, Any]) -> None:
        """Removes what the storage has of the run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        check_no_link(self._folder)
        self._storage = storage_in(self._folder.resolve())
        self._storage.delete_run(self._project, self._name, self._run_id)
        self._config |= {**config, "_Group": self._group, "_Created": self._began.isoformat()}

    def configure(self, values: Mapping[str, Any]) -> None:
        """Adds to the configuration, which is stored with the rows."""
        self._config |= values

    def log(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which is stored at once or together with the next ones."""
        self._last = {key: _as_histogram(value) if isinstance(value, Mapping) else value for key, value in row.items()}
        self._waiting.append(self._last)
        if time.monotonic() - self._stored > STORING_SECONDS:
            self._store()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Adds the summary to the configuration: trackio has no other place for what a run has once."""
        self._config |= {key: value for key, value in summary.items() if key not in self._last}
        if self._last and not self._waiting:
            self._waiting, self._rows = [self._last], self._rows - 1  # the row is there and stays, with a new configuration
        self._store()

    def _store(self) -> None:
        rows, self._waiting = self._waiting, []
        moments = [self._began + timedelta(seconds=row[COUNTED_SECONDS]) for row in rows]
        self._storage.bulk_log(
            self._project, self._name, rows, steps=[int(row[STEP]) for row in rows],
            timestamps=[moment.isoformat() for moment in moments], config=self._config, run_id=self._run_id,
            log_ids=[f"{self._run_id}-{self._rows + number}" for number in range(len(rows))],
        )  # fmt: skip
        self._rows += len(rows)
        self._stored = time.monotonic()


def storage_in(folder: Path) -> Any:
    """Returns trackio's storage, whose folder it takes from a variable when it is imported and then keeps."""
    os.environ["TRACKIO_DIR"] = str(folder)
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    if Path(utils.TRACKIO_DIR) != folder:
        raise OSError(f"this process keeps trackio's runs in {utils.TRACKIO_DIR}; another folder needs another process")
    return SQLiteStorage


def _as_histogram(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"_type": "trackio.histogram", "bins": value["bins"], "values": value["values"]}


def open_trackio(
    run_id: str, spec: Mapping[str, Any], folder: Path, *, experiment: str, tracking: Tracking,
    plan: Mapping[str, Any] | None = None,
) -> FileSink:  # fmt: skip
    """Returns a sink that writes into trackio's storage in the results folder."""
    make = partial(
        TrackioRun, folder.parent / "trackio", project=tracking.project, name=unique_name(run_id, spec), run_id=run_id,
        group=group_of(experiment, spec),
    )  # fmt: skip
    return FileSink(run_id, spec, experiment=experiment, name="trackio", package="trackio", make=make)
