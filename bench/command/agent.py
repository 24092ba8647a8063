"""`oho-bench agent` trains one trial of a W&B sweep, as an ordinary run of the method that the search repeats."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.command.command_line import resolve_device
from bench.command.handover import Journal
from bench.command.planning import check_methods, plan, write_plan
from bench.command.progress import Display
from bench.command.run_series import prepare
from bench.command.sweep import Order, Search, read_search
from bench.experiment.expansion import Experiment, Spec
from bench.experiment.plugins import entry_of
from bench.experiment.spaces import refusal
from bench.experiment.spec import data_set_of, options_in
from bench.experiment.yaml_file import ConfigError
from bench.process.run_lock import claimed
from bench.process.signals import Interrupted, Stopper, tell
from bench.process.surroundings import HANDED_ON
from bench.records import Outcome, is_damaged, read_outcome, read_run
from bench.records.files import storing
from bench.records.names import LONGEST_NAME
from bench.run.runner import run
from bench.tasks.data_sets import load
from bench.tracking.sink import Sink
from bench.tracking.wandb_runs import NAME, Place, join_sweep
from bench.tracking.wandb_sink import open_sink


@dataclass(frozen=True)
class Trial:
    """A trial to train: the sweep's search and its parameters as NAME=VALUE, the results folder, and the W&B run."""

    search: Order
    given: Sequence[str]
    out: Path
    place: Place | None


def place_in(environment: Mapping[str, str]) -> Place | None:
    """Returns where `wandb agent` wants a trial reported; None if another program has started it.  Raises `ConfigError`."""
    run_id, sweep, project = (environment.get(name) for name in HANDED_ON.values())
    if not (run_id and sweep):
        return None
    for name, value in zip(HANDED_ON, (run_id, sweep), strict=False):
        if not re.fullmatch(NAME, value):
            raise ConfigError(f"the environment variable {name} is {value!r}; letters, digits, - and _ are expected")
    return Place(run_id, sweep, project or None)


def train_trial(trial: Trial) -> Outcome | None:
    """Trains a trial and reports it to W&B; one that the results folder already has is only reported.

    Returns None if W&B has stopped it, as it does by SIGTERM; what was recorded is kept.  Raises what `load_experiment`,
    `load` and `run` raise.
    """
    search = read_search(replace(trial.search, device=resolve_device(trial.search.device)))
    experiment = _experiment(search, trial_spec(search, trial.given), trial.place)
    (spec,) = experiment.specs
    load(data_set_of(spec["task"]), trial.search.data_root)
    with storing(trial.out):
        prepare(trial.out)
    (planned,) = plan([experiment], trial.out)
    check_methods([] if planned.is_done else [planned], trial.search.data_root, Journal.new())
    with storing(trial.out), claimed(trial.out / "experiments", wait=True):
        write_plan(experiment, trial.out)
    stopper, folder = Stopper(), trial.out / planned.id
    sink = partial(_open_sink, place=trial.place, experiment=experiment)
    try:
        with stopper.listening(), storing(trial.out), claimed(folder, wait=True), Display([spec]) as display:
            display.start(1, spec)
            outcome = _reported(folder, spec, sink) or run(
                spec, trial.out, data_root=trial.search.data_root, open_sink=sink, progress=display.progress,
                stopper=stopper,
            )  # fmt: skip
            display.end(outcome)
    except Interrupted as stop:
        if trial.place is None or stop.number != signal.SIGTERM:
            raise
        tell("oho-bench: the trial was stopped; its records so far are kept")
        return None
    return outcome


def trial_spec(search: Search, given: Sequence[str]) -> Spec:
    """Returns the spec of a trial with the given parameters, which is that of a training with these values.

    Raises `ConfigError` for parameters other than the sweep's, and for values that the method refuses.
    """
    values = _values(search, given)
    epochs = values.pop("trial_epochs", search.trial_epochs)
    if epochs is None or epochs < 1 or epochs != int(epochs):
        raise ConfigError(f"trial_epochs={epochs:g}: a whole number of at least 1 is expected")
    part = search.spec["method"]["over"]
    options = entry_of("method", part).options.model_validate(options_in(part))
    for name, value in values.items():
        if reason := refusal(options, name, value):
            raise ConfigError(f"{name}={value:g}: {reason}")
    filled = type(options).model_validate(options.replace(values).model_dump(warnings=False))
    method = {**part, **filled.model_dump(mode="json")}
    return {**search.spec, "method": method, "budget": {"unit": "epochs", "amount": float(epochs)}}


def _values(search: Search, given: Sequence[str]) -> dict[str, float]:
    """Returns the hyperparameters by name."""
    texts = dict(text.partition("=")[::2] for text in given)
    names = [parameter.name for parameter in search.parameters]
    if sorted(texts) != sorted(names) or len(given) != len(names):
        expected = " ".join(f"{name}=VALUE" for name in names)
        raise ConfigError(f"the sweep's parameters are expected, {expected} (given {' '.join(given) or 'none'})")
    values = {}
    for parameter in search.parameters:
        text = texts[parameter.name]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{parameter.name}={text}: a finite number is expected")
        values[parameter.hyperparameter] = parameter.value(number)
    return values


def _experiment(search: Search, spec: Spec, place: Place | None) -> Experiment:
    """Returns the experiment in whose plan all trials of the sweep are."""
    known = f"-{re.sub('[^a-z0-9-]', '-', place.sweep.lower())}" if place else ""
    end = f"-sweep{known}"
    name = f"{search.experiment.name[: LONGEST_NAME - len(end)]}{end}"
    resolved = {key: value for key, value in search.experiment.resolved.items() if key != "figures"}
    resolved |= {"methods": [search.spec["method"]], "seeds": [spec["seed"]], "shocks": []}
    return replace(search.experiment, name=name, figures=(), specs=(spec,), resolved=resolved)


def _open_sink(run_id: str, spec: Spec, folder: Path, *, place: Place | None, experiment: Experiment) -> Sink:
    """Returns the sink of a trial: that of the W&B run which the sweep has made for it, or else the experiment's own."""
    tracking = experiment.tracking
    mode, project = tracking.mode_in(os.environ), tracking.project
    if place:
        join_sweep(folder, place)
        mode, project = "online", place.project or project
    plan = {"figures": (), "config": experiment.resolved, "specs": [spec]}
    return open_sink(run_id, spec, folder, mode=mode, project=project, experiment=experiment.name, plan=plan)


def _reported(folder: Path, spec: Spec, open_sink: Callable[[str, Spec, Path], Sink]) -> Outcome | None:
    """Reports a run that has ended already to the sink, and returns its outcome; None if it has to be made."""
    outcome = read_outcome(folder)
    if outcome is None or not outcome.status.is_result or is_damaged(folder, outcome):
        return None
    sink = open_sink(folder.name, spec, folder)
    for record in read_run(folder).records:
        sink.record(dict(record))
    sink.close(outcome)
    return outcome
