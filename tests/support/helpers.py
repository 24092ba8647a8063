"""Small real runs on digits, and the command line in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.experiment.expansion import load_experiment
from bench.process.signals import Interrupted, Stopper
from bench.process.surroundings import neutral
from bench.records import read_run, run_id
from bench.run.disturbances import Conditions
from bench.run.population import run_together
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

ROOT = Path(__file__).parents[2]

CONFIG = """\
experiment: small
figures: [distribution]
task: {name: digits-mlp, selection_epochs: 1}
budget: {steps: 60}
seeds: [0]
space: %s
threads: 1
evaluations: 6
tracking: {mode: disabled}
methods:
%s
""".replace("%s", str(ROOT / "configs/spaces/fair"), 1)

METHOD_LINES = {
    "fixed": "{name: fixed}",
    "step": "{name: step, step_size: 7}",
    "exponential": "{name: exponential}",
    "cosine": "{name: cosine}",
    "adam": "{name: adam}",
    "multistep": "{name: multistep, milestones: [1, 2], optimizer: momentum}",
    "warmup-cosine": "{name: warmup-cosine, optimizer: adamw}",
    "one-cycle": "{name: one-cycle, optimizer: {name: momentum, nesterov: true}}",
    "muon": "{name: muon}",
    "soap": "{name: soap}",
    "prodigy": "{name: prodigy}",
    "d-adaptation": "{name: d-adaptation}",
    "schedule-free-sgd": "{name: schedule-free-sgd}",
    "schedule-free-adamw": "{name: schedule-free-adamw}",
    "dog": "{name: dog}",
    "ldog": "{name: ldog}",
    "dowg": "{name: dowg}",
    "mechanic": "{name: mechanic}",
    "gdtuo": "{name: gdtuo}",
    "hypergradient-descent": "{name: hypergradient-descent}",
    "hdm": "{name: hdm}",
    "osgm": "{name: osgm}",
    "meta-optimize": "{name: meta-optimize}",
    "oho-global": "{name: oho-global, meta_rate: 1e-3}",
    "oho-layerwise": "{name: oho-layerwise, meta_rate: 1e-3}",
    "oho-full": "{name: oho-full, meta_rate: 1e-3}",
    "oho-default": "{name: oho-default}",
    "oho-averaged": "{name: oho-averaged}",
    "oho-published": "{name: oho-published, meta_rate: 1e-3}",
    "transplant": "{name: transplant, epochs: 4, over: {name: oho-global, meta_rate: 1e-3}}",
    "random-search": "{name: random-search, trial_epochs: 1, over: {name: fixed}}",
    "sobol-search": "{name: sobol-search, trial_epochs: 1, over: {name: cosine}}",
    "bayesian-search": "{name: bayesian-search, trial_epochs: 1, over: {name: adam}}",
    "tpe-search": "{name: tpe-search, trial_epochs: 2, pruner: hyperband, over: {name: step}}",
    "gp-search": "{name: gp-search, trial_epochs: 2, pruner: median, over: {name: prodigy}}",
    "cma-search": "{name: cma-search, trial_epochs: 2, pruner: successive-halving, over: {name: fixed}}",
    "population": "{name: population, members: 3, over: {name: fixed, optimizer: adam}}",
}

KINDS = {
    "fixed", "cosine", "prodigy", "schedule-free-sgd", "mechanic", "gdtuo", "hdm", "oho-default", "oho-published",
    "transplant", "random-search", "gp-search", "population",
}  # fmt: skip
"""Of each kind of method those that have code of their own.  The others repeat it; of them the quick tests ask less."""


def write_config(folder, *methods):
    path = folder / "small.yaml"
    path.write_text(CONFIG % "\n".join(f"  - {METHOD_LINES[name]}" for name in methods))
    return path


def experiment(folder, *methods, overrides=(), seeds=None):
    return load_experiment(write_config(folder, *methods), overrides=overrides, seeds=seeds)


def oho_bench(*arguments, **options):
    """In an environment with which it need not start itself anew, for which there is a test of its own."""
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    options = {"timeout": 100, "env": neutral(os.environ), **options}
    return subprocess.run(command, capture_output=True, text=True, **options)


def run_one(spec, folder, sink=None, **options):
    return run(spec, folder, data_root=None, open_sink=lambda *a: sink or NoSink(), **options)


def records_together(specs, folder, **options):
    """The outcomes of runs that are trained together, and what they recorded."""
    outcomes = run_together(specs, folder, data_root=None, open_sink=lambda *a: NoSink(), **options)
    names = ("kind", "step", "train_loss", "validation_loss", "test_loss", "hyper")
    found = [read_run(folder / run_id(spec)).records for spec in specs]
    return outcomes, [[{name: record.get(name) for name in names} for record in records] for records in found]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


class StoppedAfter(Stopper):
    """A signal that comes after so many looks at whether one has come."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def asked(self):
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else None

    @asked.setter
    def asked(self, value):
        pass


def stopped(spec, folder, looks):
    with pytest.raises(Interrupted) as stop:
        run_one(spec, folder, stopper=StoppedAfter(looks))
    assert stop.value.number == signal.SIGTERM
    return read_run(folder / run_id(spec))


def judged(monkeypatch, *reasons):
    """Has the seconds of all runs voided for these reasons, or for none, whatever the machine does."""
    verdict = Conditions.verdict

    def voided(conditions, *earlier, **options):
        return verdict(conditions, *earlier, **options)._replace(reasons=list(reasons))

    monkeypatch.setattr(Conditions, "verdict", voided)


class Ticks:
    """A clock that moves by the same amount whenever it is looked at."""

    def __init__(self, step=0.001):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def without_sums(text):
    """Records as older versions wrote them."""
    return re.sub(r', "crc": \d+}', "}", text)


def rewrite(path, change):
    """Changes the text of an ended run's records, as if an older version had written them: such ones are believed."""
    path.write_text(change(without_sums(path.read_text())))
    outcome = path.with_name("outcome.json")
    outcome.write_text(json.dumps({**json.loads(outcome.read_text()), "record_bytes": None}))


def rewrite_lines(path, change):
    """The same, with a change of the list of records."""

    def changed(text):
        lines = [json.loads(line) for line in text.splitlines()]
        change(lines)
        return "".join(json.dumps(line) + "\n" for line in lines)

    rewrite(path, changed)
