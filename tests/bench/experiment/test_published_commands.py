"""The six published commands as configurations: their values, and the three on MNIST run for two epochs."""

import math
from dataclasses import dataclass

import faults
import pytest
from helpers import ROOT, oho_bench

from bench.experiment.expansion import load_experiment
from bench.records import Status, read_runs

FOLDER = ROOT / "configs/published"


@dataclass(frozen=True)
class Command:
    """What the published README gives, or the published code fixes; `sets` values of each hyperparameter."""

    method: str
    epochs: int
    validation_batch: int
    lr: float
    meta_rate: float
    weight_decay_rate_scale: float
    weight_decay_max: float
    hidden_layers: int | None = None
    groups: int | None = None
    influence: str | None = None
    sets: int | None = None


COMMANDS = {
    "mnist-global": Command("oho-global", 100, 100, 0.1, 1e-5, 0.01, 2e-4, hidden_layers=3, sets=1),
    "mnist-full": Command("oho-full", 100, 100, 0.1, 1e-5, 0.01, 5e-4, hidden_layers=3, influence="exact", sets=8),
    "mnist-layerwise": Command(
        "oho-layerwise", 100, 100, 0.1, 1e-6, 0.01, 3e-3, hidden_layers=4, groups=3, influence="exact", sets=6
    ),
    "cifar10-global": Command("oho-global", 300, 1000, 0.1, 1e-5, 1.0, 3e-4),
    "cifar10-full": Command("oho-full", 300, 1000, 0.1, 1e-5, 1.0, 2e-4, influence="collapsed"),
    "cifar10-layerwise": Command("oho-layerwise", 300, 1000, 0.01, 5e-6, 1.0, 3e-3, groups=4, influence="exact"),
}
TASKS = {"mnist": "mnist-mlp", "cifar10": "cifar10-resnet18"}


def test_there_is_a_configuration_for_each_command():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(COMMANDS)


def test_dry_run_of_all_six():
    answer = faults.command("run", *(FOLDER / f"{name}.yaml" for name in COMMANDS), "--dry-run")
    assert answer.exit_code == 0, answer.stderr
    assert "12 runs to do, 0 done already; budget to spend: 2400 epochs" in answer.stdout


@pytest.fixture(params=sorted(COMMANDS))
def name(request):
    return request.param


@pytest.fixture
def specs(name):
    loaded = load_experiment(FOLDER / f"{name}.yaml")
    assert loaded.name == f"published-{name}"
    return loaded.specs


def test_task_and_budget_are_the_published_ones(name, specs):
    command = COMMANDS[name]
    data_set = name.split("-")[0]
    for spec in specs:
        task = spec["task"]
        assert spec["budget"] == {"unit": "epochs", "amount": command.epochs}
        assert spec["seed"] == 0
        assert spec["evaluations"] * 10 == command.epochs
        assert task["name"] == TASKS[data_set]
        assert (task["batch_size"], task["validation_size"]) == (100, 10_000)
        assert task["validation_batch_size"] == command.validation_batch
        assert task.get("hidden_layers") == command.hidden_layers
        assert task["width"] == {"mnist": 128, "cifar10": 64}[data_set]


def test_methods_are_the_exact_and_the_published_one_with_the_published_values(name, specs):
    command = COMMANDS[name]
    exact, published = (spec["method"] for spec in specs)
    assert (exact["name"], published["name"]) == (command.method, "oho-published")
    assert published["variant"] == command.method.removeprefix("oho-")
    assert exact.get("influence") == command.influence
    for method in (exact, published):
        assert method["lr"] == command.lr
        assert method["weight_decay"] == 0
        assert method["meta_rate"] == command.meta_rate
        assert method["weight_decay_rate_scale"] == command.weight_decay_rate_scale
        assert method["weight_decay_max"] == command.weight_decay_max
        assert method.get("groups") == command.groups


def test_the_exact_method_is_the_plain_algorithm(specs):
    exact = specs[0]["method"]
    assert tuple(exact["tune"]) == ("lr", "weight_decay")
    assert (exact["discount"], exact["temperature"]) == (1, 0)
    assert (exact["update_every"], exact["reset_every"]) == (1, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("mnist")])
def test_two_epochs_on_mnist(name, mnist_root, tmp_path):
    shorter = ("budget.epochs=2", "evaluations=2", "tracking.mode=disabled", "threads=1")
    overrides = [part for text in shorter for part in ("--set", text)]
    places = ("--root", mnist_root, "--out", tmp_path / "runs", "--device", "cpu")
    answer = oho_bench("run", FOLDER / f"{name}.yaml", *overrides, *places, timeout=580)
    assert answer.returncode == 0, answer.stderr
    runs = list(read_runs(tmp_path / "runs"))
    assert {run.spec["method"]["name"] for run in runs} == {COMMANDS[name].method, "oho-published"}
    for run in runs:
        final = run.outcome.final
        assert run.outcome.status is Status.BUDGET_REACHED
        assert (run.outcome.steps, final["epoch"]) == (1000, 2)
        for key in ("train_loss", "validation_loss", "test_loss", "incumbent_test_loss"):
            assert 0 < final[key] < math.log(10), key
        rates, decays = final["hyper"]["lr"], final["hyper"]["weight_decay"]
        assert len(rates) == len(decays) == COMMANDS[name].sets
        assert all(rate > 0 for rate in rates)
        assert all(abs(rate - COMMANDS[name].lr) > 1e-7 for rate in rates)
        assert all(0 <= decay <= COMMANDS[name].weight_decay_max for decay in decays)
