"""TensorBoard as a sink: event files in `DIR/tensorboard/EXPERIMENT/RUN`, for `tensorboard --logdir DIR/tensorboard`.

Points stand at the training step.  TensorBoard's relative time is counted seconds, because each event's time is the start
plus those; epochs and counted seconds are scalars as well.  Its own writer would put the host's name into the file's name
and write from a thread of its own, while the clock is running.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.experiment.schema import Tracking
from bench.records.files import check_no_link
from bench.records.wandb_names import COUNTED_SECONDS, IS_DIVERGED, SELECTED, STATUS, STEP
from bench.tracking.file_sink import FileSink, unique_name

EVENTS = "events.out.tfevents"
"""How TensorBoard knows its files."""


class EventFile:
    """The event file of one run."""

    def __init__(self, folder: Path, run_id: str, spec: Mapping[str, Any]):
        self._folder, self._run_id, self._spec = folder, run_id, spec
        self._config: dict[str, Any] = {}
        self._last: dict[str, tuple[int, Any]] = {}
        """The step and the value that each tag has been given last."""
        self._began, self._now, self._step = time.time(), 0.0, 0

    def begin(self, config: Mapping[str, Any]) -> None:
        """Removes older event files of the run, and tells a TensorBoard that has read them to forget them."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        for folder in (self._folder.parents[1], self._folder.parent, self._folder):
            folder.mkdir(parents=True, exist_ok=True)
            check_no_link(folder)
        for leftover in self._folder.parents[1].glob(f"*/*, {self._run_id}/{EVENTS}.*"):
            leftover.unlink()
        self._event = Event
        file = open(self._folder / f"{EVENTS}.{int(self._began)}.oho-bench", "xb")  # noqa: SIM115  until the run's end
        self._file = RecordWriter(file)
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START))
        self._text("spec", json.dumps(config["spec"], indent=1))
        self._config |= {key: value for key, value in config.items() if isinstance(value, str | bool | int | float)}
        self._file.flush()

    def configure(self, values: Mapping[str, Any]) -> None:
        """Writes the hyperparameters, which are complete now."""
        self._config |= values
        for summary in self._hparams()[:2]:
            self._write(summary=summary)

    def log(self, row: Mapping[str, Any]) -> None:
        """Writes the values of a row, except those that stand there already."""
        self._step, self._now = int(row[STEP]), row[COUNTED_SECONDS]
        for tag, value in row.items():
            if tag == STEP or self._last.get(tag) == (self._step, value):
                continue
            self._last[tag] = self._step, value
            if isinstance(value, str):
                self._text(tag, value)
            else:
                self._write(summary=_histogram(tag, value) if isinstance(value, Mapping) else _scalar(tag, value))
        self._file.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary as a text, and that the run has ended if it has a result."""
        self._text("summary", json.dumps(summary, indent=1))
        if summary[STATUS] == "budget_reached" or summary[IS_DIVERGED]:
            self._write(summary=self._hparams()[2])
        self._file.close()

    def _hparams(self) -> tuple[Any, Any, Any]:
        """Returns the experiment, the beginning and the end of a run, as the tab `HPARAMS` knows it."""
        from torch.utils.tensorboard.summary import hparams

        return hparams(self._config, dict.fromkeys(SELECTED, 0.0))

    def _text(self, tag: str, text: str) -> None:
        from torch.utils.tensorboard.summary import text as as_text

        indented = "\n".join(f"    {line}" for line in text.splitlines())  # which Markdown leaves as it is
        self._write(summary=as_text(tag, indented))

    def _write(self, **content: Any) -> None:
        event = self._event(wall_time=self._began + self._now, step=self._step, **content)
        self._file.write(event.SerializeToString())


def _scalar(tag: str, value: float) -> Any:
    from torch.utils.tensorboard.summary import scalar

    return scalar(tag, value)


def _histogram(tag: str, value: Mapping[str, Any]) -> Any:
    """Returns a histogram that W&B's rows have; the moments are those of the bins' centres."""
    from torch.utils.tensorboard.summary import histogram_raw

    counts, edges = value["values"], value["bins"]
    centres = [(low + high) / 2 for low, high in pairwise(edges)]
    total, squares = (sum(count * each**power for count, each in zip(counts, centres, strict=True)) for power in (1, 2))
    return histogram_raw(tag, edges[0], edges[-1], sum(counts), total, squares, edges[1:], counts)


def open_tensorboard(
    run_id: str, spec: Mapping[str, Any], folder: Path, *, experiment: str, tracking: Tracking,
    plan: Mapping[str, Any] | None = None,
) -> FileSink:  # fmt: skip
    """Returns a sink that writes event files into the results folder."""
    place = folder.parent / "tensorboard" / experiment / unique_name(run_id, spec)
    make = partial(EventFile, place, run_id, spec)
    return FileSink(run_id, spec, experiment=experiment, name="TensorBoard", package="tensorboard", make=make)
