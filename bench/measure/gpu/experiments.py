"""The suite's own experiments on the device: the paper's first figure, MNIST against the clock, and ResNet-18 on CIFAR-10.

A part has so many seconds, and budgets of what it can make in them; runs that are not in time are cut off.
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
from bench.experiment.shipped import experiment_file
from bench.measure.gpu.tables import Table
from bench.process.signals import Interrupted, Stopper
from bench.records import Outcome, read_outcome

PAPER_EPOCHS, STEPS_PER_EPOCH = 100, 500
PILOT_STEPS = (20, 420)
"""Two lengths whose difference in counted seconds tells what a step of all runs of an experiment takes."""
SHARE = 0.85
"""The share of the time that the epochs are planned to take: validations and tests come on top."""
STOPPING_SECONDS = 8.0
"""How long before its end a part stops its runs, which then save themselves."""
TIMED_SECONDS = 20.0
"""The most that a run on MNIST has."""
SET_UP_SECONDS = {"performance": 1.7, "cifar10": 8.0}
"""What is set aside for what is not counted of each run."""
LATE_SECONDS = 15.0
"""How much longer than planned the runs of a fixed length may take before they are cut off."""
TINY = ["task.name=digits-mlp", "task.width=4", "task.hidden_layers=3", "evaluations=1", "threads=1"]
COLUMNS = (
    "experiment", "method", "engine", "runs", "epochs (median)", "counted s", "test loss", "test error", "remarks",
)  # fmt: skip


def starts(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `starts`: random starts on MNIST, all with as many epochs as the time allows."""
    words = f"Each method from the same starts; the paper has {PAPER_EPOCHS} epochs."
    table = _table(out, "starts", "Random initial hyperparameters on MNIST", words, device)
    deadline = time.monotonic() + seconds

    def load(budget: str) -> Experiment:
        settings = [*(TINY if tiny else []), f"budget.{budget}"]
        path, seeds = experiment_file(Path("gpu/distribution")), (20, 21) if tiny else None
        return load_experiment(path, overrides=settings, seeds=seeds, device=device.type)

    with _guarded(table, "starts"):
        within = seconds - LATE_SECONDS - STOPPING_SECONDS
        budget = "steps=3" if tiny else f"epochs={_epochs_within(within, load, out / 'pilot')}"
        _run(load(budget), out / "runs", table, 60 if tiny else deadline - time.monotonic())


def _epochs_within(seconds: float, load: Callable[[str], Experiment], folder: Path) -> int:
    """Returns how many epochs all runs of an experiment can make in the seconds, at least one and at most the paper's."""
    begun, counted = time.monotonic(), list[float]()
    for steps in PILOT_STEPS:
        start, experiment, pilot = time.monotonic(), load(f"steps={steps}"), folder / str(steps)
        planned = plan([experiment], pilot)
        launch([experiment], planned, pilot, data_root=None)
        outcomes = _outcomes(planned, pilot)
        if len(outcomes) < len(planned):
            return 1
        counted.append(sum(outcome.counted_seconds / outcome.shared_by for outcome in outcomes))
    ended = time.monotonic()
    set_up = max(0.0, ended - start - counted[1])  # none of a pilot that an earlier call made
    a_step = max(1e-6, (counted[1] - counted[0]) / (PILOT_STEPS[1] - PILOT_STEPS[0]))
    left = seconds - (ended - begun) - set_up
    return int(max(1, min(PAPER_EPOCHS, SHARE * left / a_step / STEPS_PER_EPOCH)))


def performance(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `performance`: MNIST, one run after another, each with the same counted seconds."""
    _timed("performance", out, device, tiny, seconds)


def cifar10(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `cifar10`: ResNet-18, one run after another, each with the same counted seconds."""
    _timed("cifar10", out, device, tiny, seconds)


def _timed(name: str, out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    table = _table(out, name, f"Equal seconds, {name}", "Runs that are not in time are cut off.", device)
    with _guarded(table, name):
        path, settings = experiment_file(Path(f"gpu/{name}")), TINY if tiny else []
        count = len(load_experiment(path, overrides=settings, device=device.type).specs)
        each = 0.01 if tiny else max(2.0, seconds / count - SET_UP_SECONDS[name])
        each = min(each, TIMED_SECONDS) if name == "performance" else each
        settings = [*settings, f"budget.seconds={each:.3g}"]
        experiment = load_experiment(path, overrides=settings, seeds=(20,) if tiny else None, device=device.type)
        _run(experiment, out / "runs", table, 60 if tiny else seconds)


def _table(out: Path, name: str, title: str, words: str, device: torch.device) -> Table:
    return Table(out, name, title=title, words=words, columns=COLUMNS, device=device)


@contextlib.contextmanager
def _guarded(table: Table, name: str) -> Iterator[None]:
    """Adds what an experiment fails with to the table, so that the next one is run."""
    try:
        yield
    except Exception as error:
        table.add(name, *[""] * (len(COLUMNS) - 2), f"{type(error).__name__}: {error}"[:160])


def _run(experiment: Experiment, folder: Path, table: Table, seconds: float) -> None:
    """Makes an experiment's runs, those that the seconds hold, and adds a row for each method."""
    with contextlib.suppress(Interrupted), Stopper().listening():
        timer = threading.Timer(max(0.0, seconds - STOPPING_SECONDS), os.kill, (os.getpid(), signal.SIGTERM))
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
        outcomes = _outcomes(items, folder)
        ended = [outcome for outcome in outcomes if outcome.status.is_result]
        losses, errors = ([outcome.final[f"incumbent_test_{name}"] for outcome in ended] for name in ("loss", "error"))
        statuses = sorted({str(outcome.status).replace("_", " ") for outcome in outcomes})
        epochs, counted = [outcome.final["epoch"] for outcome in ended], [outcome.counted_seconds for outcome in ended]
        engines = sorted({outcome.environment.get("engine", "") for outcome in ended})
        table.add(
            experiment.name, label, ", ".join(engines), f"{len(ended)} of {len(items)}", _median(epochs, ".4g"),
            _median(counted, ".2f"), _median(losses, ".4f"), _median(errors, ".4f"),
            ", ".join(statuses) or "not begun: the time was over",
        )  # fmt: skip


def _outcomes(planned: Sequence[Planned], folder: Path) -> list[Outcome]:
    """Returns the outcomes of those runs that have one."""
    return [outcome for item in planned if (outcome := read_outcome(folder / item.id)) is not None]


def _median(values: Sequence[float | None], form: str) -> str:
    found = [value for value in values if value is not None]
    return format(statistics.median(found), form) if found else ""
