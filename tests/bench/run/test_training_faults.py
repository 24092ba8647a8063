"""Memory that does not suffice, numbers that are not finite, methods that raise: docs/reliability.md, word for word."""

import gc
import re
import resource
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from faults import Hoard, command, outcome_of
from helpers import experiment, run_one, write_config

from baselines.training import Training, TrainingState
from bench.command.status import describe
from bench.experiment.expansion import load_experiment
from bench.experiment.registries import METHODS
from bench.protocol import Split, Task
from bench.records import Status, read_run, run_id
from bench.run import runner


def write_too_large(folder, *methods, width=60_000):
    """A network of which one layer takes 14 GB."""
    folder.mkdir()
    path = write_config(folder, *methods)
    text = path.read_text().replace("experiment: small", "experiment: large")
    path.write_text(text.replace("selection_epochs: 1", f"selection_epochs: 1, width: {width}"))
    return path


@pytest.fixture
def memory_limit():
    """Twelve GB are all that this process gets."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("memory_limit")
def test_a_network_that_does_not_fit_fails_and_the_other_runs_go_on(tmp_path):
    configs = [write_too_large(tmp_path / "large", "fixed", "oho-full"), write_config(tmp_path, "fixed")]
    answer = command("run", *configs, "--out", tmp_path / "runs")
    assert answer.exit_code == 1
    status = f"`oho-bench status {tmp_path / 'runs'}` lists them, the same command repeats them"
    assert answer.stderr.splitlines()[-1] == f"oho-bench: 2 runs failed; {status}"
    lines = describe(tmp_path / "runs").splitlines()
    assert lines[:2] == ["large: 2 runs: 2 failed", "small: 1 runs: 1 budget reached"]
    for line in lines[2:4]:
        assert re.match(r"failed .+: RuntimeError: .*can't allocate memory: you tried to allocate 14400000000 bytes", line)


def test_cuda_out_of_memory_is_a_failed_run_whose_memory_is_free_again(tmp_path, monkeypatch):
    hoard = Hoard(seed=1)
    monkeypatch.setattr(Training, "advance", lambda method, state, **options: hoard.advance(method, state, **options))
    held = []
    monkeypatch.setattr(
        "bench.command.progress.Display.start", lambda *arguments: held.append([seen() for seen in hoard.seen])
    )
    monkeypatch.setattr("bench.command.progress.Display.end", lambda *arguments: None)
    gc.disable()  # what only a search for cycles would free is not free when the next run begins
    try:
        alone = experiment(tmp_path, "adam", seeds=[0, 1, 2], overrides=["population=off"])
        counts = outcome_of([alone], tmp_path / "runs")
    finally:
        gc.enable()
    assert counts == {Status.BUDGET_REACHED: 2, Status.FAILED: 1}
    assert held[2] == [None]
    (line,) = [line for line in describe(tmp_path / "runs").splitlines() if line.startswith("failed")]
    assert line.endswith(": torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 is full.")


# Numbers that are not finite

TRAINED = [
    "fixed", "oho-global", "oho-layerwise", "oho-full", "oho-default", "oho-published", "random-search", "bayesian-search",
    "tpe-search", "gp-search", "cma-search", "population",
]  # fmt: skip


def break_data(number):
    """One number of one training example."""

    def act(monkeypatch):
        def broken(spec, device, root):
            task, test = plain(spec, device, root)
            inputs = task.train.inputs.clone()
            inputs[7, 20] = number
            return replace(task, train=Split(inputs, task.train.targets)), test

        plain = runner.task_of
        monkeypatch.setattr(runner, "task_of", broken)

    return act


def break_loss(monkeypatch):
    """The value of the training loss."""
    plain = Task.training_loss
    monkeypatch.setattr(Task, "training_loss", lambda *arguments: plain(*arguments) * float("nan"))


def without_slope(model):
    """Zero, with a gradient that is not finite."""
    return torch.sqrt(0 * next(model.parameters()).sum())


def break_gradient(monkeypatch):
    """The gradient of a training loss whose value is finite."""
    plain = Task.training_loss
    monkeypatch.setattr(Task, "training_loss", lambda self, model, batch: plain(self, model, batch) + without_slope(model))


def break_hypergradient(monkeypatch):
    """The gradient of a validation loss whose value is finite; training and selection go by losses of their own."""
    plain = Task.validation_loss
    monkeypatch.setattr(Task, "training_loss", plain)
    monkeypatch.setattr(
        Task, "validation_loss", lambda self, model, batch: plain(self, model, batch) + without_slope(model)
    )


BREAKS = {
    "NaN in the data": break_data(float("nan")), "infinity in the data": break_data(float("inf")),
    "loss": break_loss, "gradient": break_gradient, "hypergradient": break_hypergradient,
}  # fmt: skip


def is_search(name):
    return name.endswith("search") or name == "population"


def cases():
    """Every kind of method meets every break here; others that share its code meet them among the slow tests."""
    kinds = ("fixed", "oho-global", "oho-default", "oho-published", "random-search", "population")
    for name, broken in product(TRAINED, BREAKS):
        repeats = name not in kinds or broken == "infinity in the data"
        yield pytest.param(name, broken, marks=[pytest.mark.slow] if repeats else [])


@pytest.mark.parametrize(("name", "broken"), cases())
def test_what_is_not_finite_is_a_result(name, broken, tmp_path, monkeypatch):
    BREAKS[broken](monkeypatch)
    spec = experiment(tmp_path, name).specs[0]
    outcome = run_one(spec, tmp_path)
    found = read_run(tmp_path / run_id(spec))
    goes_on = is_search(name) or (broken == "hypergradient" and name != "oho-published")
    assert outcome.status is (Status.BUDGET_REACHED if goes_on else Status.DIVERGED), outcome.message
    assert found.incumbents[-1]["validation_loss"] < 3  # the untrained model, at the worst
    if is_search(name) and broken != "hypergradient":
        assert {trial["status"] for trial in found.trials} <= {"diverged", "cut"}
    if broken == "hypergradient" and METHODS[name].family == "online" and name != "oho-published":
        assert found.evaluations[-1]["scalars"]["skipped_hypergradient"] == 60


# Methods that raise


RAISING = [
    *product(((Training, "init"), (Training, "advance"), (TrainingState, "scalars")), (0, 1), (ZeroDivisionError,)),
    ((Training, "advance"), 1, SystemExit),
    ((TrainingState, "finish"), 0, ZeroDivisionError),
    ((TrainingState, "finish"), 0, SystemExit),
]


@pytest.mark.parametrize(("place", "calls", "error"), RAISING)
def test_a_method_that_raises_is_one_failed_run(place, calls, error, tmp_path, monkeypatch):
    (owner, part), count = place, Counter()
    plain = getattr(owner, part)

    def broken(self, *arguments, **options):
        count[part] += self.options.lr == 0.125
        if self.options.lr == 0.125 and count[part] > calls:
            raise error(f"{part} is broken")
        return plain(self, *arguments, **options)

    monkeypatch.setattr(owner, part, broken)
    path = write_config(tmp_path, "fixed", "adam", "step")
    path.write_text(path.read_text().replace("{name: adam}", "{name: adam, lr: 0.125}"))
    counts = outcome_of([load_experiment(path)], tmp_path / "runs")
    assert counts == {Status.BUDGET_REACHED: 2, Status.FAILED: 1}
    (line,) = [line for line in describe(tmp_path / "runs").splitlines() if line.startswith("failed")]
    assert line.endswith(f": {error.__name__}: {part} is broken")
