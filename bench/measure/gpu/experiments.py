"""The suite's own experiments on the device: the paper's MNIST figures, MNIST against the clock, and ResNet-18 on CIFAR-10.

A part has so many seconds.  Runs that it leaves unfinished keep their checkpoints, so that another call continues them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from bench.command.planning import Planned, plan
from bench.command.run_series import launch
from bench.experiment.expansion import Experiment, load_experiment
from bench.experiment.schema import ExperimentFields
from bench.experiment.shipped import experiment_file
from bench.measure.gpu.tables import Table
from bench.process.signals import Interrupted, Stopper
from bench.records import read_outcome

PAPER_EPOCHS, STEPS_PER_EPOCH = 100, 500
FIGURES = {"distribution": 32, "sets": 8, "convergence": 8, "resiliency": 8, "stability": 8, "reset": 8}
"""The paper's figures on MNIST in order of priority, each with its number of seeds."""
PILOT_STEPS = (20, 60)
"""Two lengths whose difference tells what a step of all runs of an experiment takes, without their set-up."""
SHARE = 0.7
"""The share of a figure's time that its epochs are planned to take: validations and tests come on top."""
TIMED_SECONDS, SET_UP_SECONDS = 20.0, 6.0
"""The most that a run on MNIST has, and what is set aside for what is not counted of each run."""
LATE_SECONDS = 5.0
"""How much longer than planned a figure may take before it is cut off."""
TINY = ["task.name=digits-mlp", "task.width=4", "task.hidden_layers=3", "evaluations=1", "threads=1"]
COLUMNS = ("experiment", "method", "runs", "epochs (median)", "counted s", "test loss", "test error", "remarks")


def engine(name: str) -> list[str]:
    """Returns the setting of an experiment that asks for an engine, if experiments have one."""
    return [f"engine={name}"] if "engine" in ExperimentFields.model_fields else []


def figures(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `figures` and the runs of the paper's figures, each with as many epochs as its time allows."""
    table = _table(out, "figures", "The paper's figures on MNIST", f"asked: {PAPER_EPOCHS} epochs, ≥ 32 starts.", device)
    deadline = time.monotonic() + seconds
    names = ["reset"] if tiny else list(FIGURES)
    for place, name in enumerate(names):
        def load(budget: str, name: str = name) -> Experiment:
            sizes = TINY if tiny else ["evaluations=10", "population=64"]
            settings = [*sizes, budget, "tracking.mode=disabled", *engine("eager")]  # graphs are of single runs
            seeds = tuple(range(1 if tiny else FIGURES[name]))
            path = experiment_file(Path(f"mnist/{name}"))
            return load_experiment(path, overrides=settings, seeds=seeds, device=device.type)

        share = (deadline - time.monotonic()) / (len(names) - place)
        with _guarded(table, name):
            budget = "steps=3" if tiny else f"epochs={_epochs_within(share, load, out / 'pilot')}"
            _run(load(f"budget.{budget}"), out / "runs", table, share + LATE_SECONDS)


def _epochs_within(seconds: float, load: Callable[[str], Experiment], folder: Path) -> int:
    """Returns how many epochs all runs of an experiment can make in the seconds, at least one and at most the paper's."""
    begun, spent = time.monotonic(), []
    for steps in PILOT_STEPS:
        start = time.monotonic()
        experiment = load(f"budget.steps={steps}")
        launch([experiment], plan([experiment], folder), folder, data_root=None)
        spent.append(time.monotonic() - start)
    a_step = max(1e-4, (spent[1] - spent[0]) / (PILOT_STEPS[1] - PILOT_STEPS[0]))
    left = seconds - (time.monotonic() - begun) - (spent[0] - PILOT_STEPS[0] * a_step)
    return int(max(1, min(PAPER_EPOCHS, SHARE * left / a_step / STEPS_PER_EPOCH)))


def performance(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `performance`: MNIST, one run after another, each with the same counted seconds."""
    _timed("performance", out, device, tiny, seconds)


def cifar10(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `cifar10`: ResNet-18, one run after another, each with the same counted seconds."""
    _timed("cifar10", out, device, tiny, seconds)


def _timed(name: str, out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    table = _table(out, name, f"Equal seconds, {name}", "Runs that are not in time are continued by another call.", device)
    with _guarded(table, name):
        path, settings = experiment_file(Path(f"gpu/{name}")), [*(TINY if tiny else []), *engine("auto")]
        count = len(load_experiment(path, overrides=settings, device=device.type).specs)
        each = 0.01 if tiny else max(2.0, seconds / count - SET_UP_SECONDS)
        each = min(each, TIMED_SECONDS) if name == "performance" else each
        experiment = load_experiment(path, overrides=[*settings, f"budget.seconds={each:.3g}"], device=device.type)
        _run(experiment, out / "runs", table, seconds)


def _table(out: Path, name: str, title: str, words: str, device: torch.device) -> Table:
    return Table(out, name, title=title, words=words, columns=COLUMNS, device=device)


@contextlib.contextmanager
def _guarded(table: Table, name: str) -> Iterator[None]:
    """Adds what an experiment fails with to the table, so that the next one is run."""
    try:
        yield
    except Exception as error:
        table.add(name, "", "", "", "", "", "", f"{type(error).__name__}: {error}"[:160])


def _run(experiment: Experiment, folder: Path, table: Table, seconds: float) -> None:
    """Makes an experiment's runs, those that the seconds hold, and adds a row for each method."""
    with contextlib.suppress(Interrupted), Stopper().listening():
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        try:
            launch([experiment], plan([experiment], folder), folder, data_root=None)
        finally:
            timer.cancel()
            timer.join()
    _add_rows(table, experiment, plan([experiment], folder), folder)


def _add_rows(table: Table, experiment: Experiment, planned: Sequence[Planned], folder: Path) -> None:
    labels = dict.fromkeys(item.spec["method"]["label"] for item in planned)
    for label in labels:
        items = [item for item in planned if item.spec["method"]["label"] == label]
        outcomes = [outcome for item in items if (outcome := read_outcome(folder / item.id)) is not None]
        ended = [outcome for outcome in outcomes if outcome.status.is_result]
        losses, errors = ([outcome.final[f"incumbent_test_{name}"] for outcome in ended] for name in ("loss", "error"))
        statuses = sorted({str(outcome.status).replace("_", " ") for outcome in outcomes})
        epochs, counted = [outcome.final["epoch"] for outcome in ended], [outcome.counted_seconds for outcome in ended]
        table.add(
            experiment.name, label, f"{len(ended)} of {len(items)}", _median(epochs, ".4g"), _median(counted, ".2f"),
            _median(losses, ".4f"), _median(errors, ".4f"), ", ".join(statuses) or "not begun: the time was over",
        )  # fmt: skip


def _median(values: Sequence[float | None], form: str) -> str:
    found = [value for value in values if value is not None]
    return format(statistics.median(found), form) if found else ""
