"""trackio as a sink: a data base in `DIR/trackio`, which `TRACKIO_DIR=DIR/trackio trackio show` opens.

Rows go straight into trackio's storage.  Its `init` would start threads, print, and look for a Space to send them to; so
nothing listens here and nothing leaves the machine.  What trackio shows as time is counted seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiment.schema import Tracking
from bench.records.files import check_no_link
from bench.records.wandb_names import COUNTED_SECONDS, STEP, group_of
from bench.tracking.file_sink import FileSink, unique_name


class TrackioRun:
    """One run of a project in trackio's storage, under its name and our run's id."""

    def __init__(self, folder: Path, *, project: str, name: str, run_id: str, group: str):
        self._folder, self._project, self._name, self._run_id, self._group = folder, project, name, run_id, group
        self._config: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._began, self._rows = datetime.now(UTC), 0

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
        """Stores a row."""
        self._last = {key: _as_histogram(value) if isinstance(value, Mapping) else value for key, value in row.items()}
        self._store(self._last)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Adds the summary to the configuration: trackio has no other place for what a run has once."""
        self._config |= {key: value for key, value in summary.items() if key not in self._last}
        if self._last:
            self._rows -= 1  # the last row is there, and what is there stays
            self._store(self._last)

    def _store(self, values: Mapping[str, Any]) -> None:
        moment = self._began + timedelta(seconds=values[COUNTED_SECONDS])
        self._storage.bulk_log(
            self._project, self._name, [dict(values)], steps=[int(values[STEP])], timestamps=[moment.isoformat()],
            config=self._config, log_ids=[f"{self._run_id}-{self._rows}"], run_id=self._run_id,
        )  # fmt: skip
        self._rows += 1


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
