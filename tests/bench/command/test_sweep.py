"""Sweeps with the real wandb, against a small server: it proves what is sent, not what W&B accepts."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from faults import timeless, told
from helpers import CONFIG, ROOT, StoppedAfter, run_one
from typer.testing import CliRunner
from wandb_server import KEY, SET_BY_CLIENT, Server

from bench.cli import app
from bench.command.agent import Trial, train_trial
from bench.command.sweep import Order
from bench.experiment.expansion import load_experiment
from bench.process.signals import Interrupted
from bench.protocol import Dimension, Space
from bench.records import read_outcome, run_id
from bench.tracking.sweep_parameters import SweepError, parameters_of
from bench.tracking.wandb_runs import Place
from bench.tracking.wandb_settings import PATIENCE
from bench.tracking.wandb_sink import NoSink, unreachable

SEARCHES = """\
  - {name: random-search, trial_epochs: 2, pruner: hyperband, over: {name: exponential}}
  - {name: bayesian-search, trial_epochs: 1, pruner: median, over: {name: step, optimizer: momentum}}
  - {name: tpe-search, trial_epochs: 1, over: fixed}
"""
SET = (*SET_BY_CLIENT, "PROJECT", "ENTITY")
"""What this process's client and our sink set."""
GIVEN = {"lr": 0.02, "weight_decay": 1e-05, "one_minus_gamma": 0.001}
TRAINING = "{name: exponential, lr: 0.02, weight_decay: 1e-05, gamma: 0.999}"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG % SEARCHES)
    return path


@pytest.fixture
def server(tmp_path):
    """A server with a user of its own; W&B's client begins and ends with the test."""
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name in SET:
            patch.setenv(f"WANDB_{name}", "")  # so that they are as before after the test
            patch.delenv(f"WANDB_{name}")
        for name, value in PATIENCE.items():
            patch.setenv(f"WANDB_X_{name}", str(value))
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", server.address)
        patch.setenv("WANDB_DIR", str(tmp_path))
        patch.setenv("WANDB_MODE", "online")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("HOME", str(tmp_path))
        wandb.teardown()
        unreachable.clear()
        yield server
        wandb.teardown()
        unreachable.clear()
    server.listener.shutdown()


def sweep(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


def as_wandb_reads(path):
    """A sweep's definition."""
    from wandb.sdk.launch.sweeps.utils import load_sweep_config  # it takes seconds to import, and no other file needs it

    return load_sweep_config(str(path))


def definition(config, *arguments):
    path = config.with_name("sweep.yaml")
    answer = sweep(config, *arguments, "-o", path)
    assert answer.exit_code == 0, answer.output
    return as_wandb_reads(path), answer


@pytest.mark.parametrize(
    ("law", "name", "expected"),
    [
        ({"low": 1e-4, "high": 0.2}, "x", {"distribution": "uniform", "min": 1e-4, "max": 0.2}),
        ({"low": 1, "high": 3, "offset": 0.5}, "x", {"distribution": "uniform", "min": 1.5, "max": 3.5}),
        ({"low": 0.25, "high": 0.5, "complement": True}, "x", {"distribution": "uniform", "min": 0.5, "max": 0.75}),
        ({"low": 1.2, "high": 4.9, "integer": True}, "x", {"distribution": "int_uniform", "min": 2, "max": 4}),
        ({"low": 4.2, "high": 5.9, "integer": True}, "x", {"value": 5}),
        ({"low": 1e-4, "high": 0.2, "log": True}, "x", {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.2}),
        (
            {"low": 0.5, "high": 3.5, "log": True, "integer": True},
            "x", {"distribution": "q_log_uniform_values", "min": 0.5, "max": 3.5, "q": 1},
        ),
        (
            {"low": 1e-4, "high": 0.2, "log": True, "complement": True},
            "one_minus_x", {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.2},
        ),
    ],
)  # fmt: skip
def test_a_law_is_the_distribution_that_equals_it(law, name, expected):
    (found,) = parameters_of(Space(name="s", hyperparameters={"x": law}), ["x"])
    assert (found.name, found.definition) == (name, expected)
    for fraction in (0.0, 0.3, 1.0):
        value = Dimension(**law).at(fraction)
        assert found.value(1 - value if name != "x" else value) == pytest.approx(value)


@pytest.mark.parametrize(
    ("law", "why"),
    [
        ({"low": 1e-4, "high": 0.2, "log": True, "offset": 0.1}, "logarithmic in x - 0.1, and W&B has no such law: use"),
        ({"low": 1.3, "high": 9, "log": True, "integer": True}, "W&B would round .* give it whole bounds"),
    ],
)
def test_a_law_that_wandb_lacks_is_refused_with_a_remedy(law, why):
    with pytest.raises(SweepError, match=why):
        parameters_of(Space(name="s", hyperparameters={"x": law}), ["x"])


def test_a_sweep_is_the_search(config):
    found, answer = definition(config, "--method", "random-search", "--set", "evaluations=4")
    assert found["parameters"].keys() == GIVEN.keys()
    assert found["parameters"]["weight_decay"] == {"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-2}
    assert {key: found[key] for key in ("method", "metric", "run_cap", "early_terminate", "project")} == {
        "method": "random", "metric": {"name": "best_validation_loss", "goal": "minimize"}, "project": "oho-bench",
        "run_cap": 3, "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 3},  # 60 steps, 20 a trial
    }  # fmt: skip
    options = ["--method", "random-search", "--seed", "0", "--out", "runs", "--set", "evaluations=4"]
    assert found["command"] == ["${program}", "agent", str(config), *options, "${args_no_hyphens}"]
    assert "left out" not in answer.stderr
    found, answer = definition(config, "--method", "bayesian-search", "--trials", 7, "--name", "mine", "--seed", 4)
    assert (found["method"], found["run_cap"], found["name"]) == ("bayes", 7, "mine")
    assert "early_terminate" not in found
    assert answer.stderr == "oho-bench: the pruner 'median' is left out, since W&B has none like it\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--method", "tpe-search"], "--method tpe-search: W&B has no sweep that equals it; a sweep can be"),
        (["--method", "random"], "--method random: the experiment has no such method; a sweep can be"),
        (["--method", "random-search", "--set", "budget={seconds: 3}"], "the search's budget is in seconds, .* --trials N"),
        (["--method", "random-search", "--set", "task.selection_epochs=3"], "a trial of 20 steps would end before"),
        (
            ["--method", "random-search", "--set", "budget={seconds: 3}", "--set", "task.selection_every={seconds: 1}"],
            "task.selection_every: a sweep.s trials have budgets in epochs, not in counted time; leave it out with",
        ),
        (
            ["--method", "random-search", "--set", "methods=[{name: random-search, over: fixed}]", "--set",
             "space=published-random"], "the law of lr is logarithmic in lr - 0.0001, .* `oho-bench run`",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_sweep_is_refused_in_one_line(arguments, why, config):
    answer = sweep(config, *arguments)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert re.search(why, answer.stderr), answer.stderr


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["lr=0.1"], "the sweep's parameters are expected, lr=VALUE weight_decay=VALUE one_minus_gamma=VALUE"),
        (["lr=big", "weight_decay=0", "one_minus_gamma=0.1"], "lr=big: a finite number is expected"),
        (["lr=inf", "weight_decay=0", "one_minus_gamma=0.1"], "lr=inf: a finite number is expected"),
        (["lr=-1", "weight_decay=0", "one_minus_gamma=0.1"], "lr=-1: a number above 0 is expected"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_trained_with_are_one_line(given, why, config, tmp_path):
    options = ["--method", "random-search", "--out", str(tmp_path / "r")]
    answer = CliRunner().invoke(app, ["agent", str(config), *given, *options])
    assert (answer.exit_code, answer.stderr.count("\n")) == (2, 1)
    assert why in answer.stderr
    assert not (tmp_path / "r").exists()


def same_training(config, folder):
    """The run of a training with the values of `GIVEN`, and the id of its folder."""
    trained = CONFIG.replace("{steps: 60}", "{epochs: 2}") % f"  - {TRAINING}"
    path = config.with_name("training.yaml")
    path.write_text(trained)
    (spec,) = load_experiment(path).specs
    run_one(spec, folder)
    return run_id(spec)


def test_a_trial_is_the_training_with_these_values_and_reaches_the_sweeps_runs(config, server, tmp_path, caplog):
    found, _ = definition(config, "--method", "random-search")
    sweep_id = wandb.sweep(found)
    assert json.loads(json.dumps(found)) == load_sweep_text(server.sweeps[sweep_id]["config"], tmp_path)
    order, results = Order(config, "random-search", seed=0, overrides=(), data_root=None), tmp_path / "runs"
    given = [f"{name}={value}" for name, value in GIVEN.items()]
    for _ in range(2):  # the second time, W&B proposes the same again
        command = server.trial(GIVEN)
        outcome = train_trial(Trial(order, given, results, Place(command["run_id"], sweep_id)))
        assert outcome.status == "budget_reached"
    identity = same_training(config, tmp_path / "alone")
    assert [path.parent.name for path in results.glob("*/spec.json")] == [identity]
    assert timeless(results / identity) == timeless(tmp_path / "alone" / identity)
    kept = json.loads((results / identity / "wandb.json").read_text())
    assert (kept["id"], kept["sweep"]) == ("trial1", sweep_id)
    assert json.loads((results / f"experiments/small-sweep-{sweep_id}.json").read_text())["runs"] == [identity]
    assert server.told.keys() == {"trial0", "trial1"}
    assert [server.told[name]["sweep"] for name in server.told] == [sweep_id] * 2
    assert server.rows["trial0"]
    assert len(server.rows["trial0"]) == len(server.rows["trial1"])
    config = {key: part["value"] for key, part in json.loads(server.told["trial1"]["config"]).items()}
    assert GIVEN.items() <= config.items()
    assert (config["gamma"], config["experiment"]) == (0.999, f"small-sweep-{sweep_id}")
    server.refuse = {"graphql": 401}
    assert train_trial(Trial(order, given, results, Place("refused", sweep_id))).status == "budget_reached"
    (line,) = told(caplog)
    assert re.fullmatch(r"W&B cannot be reached \(.*not with me.*\); runs are kept offline until `oho-bench sync` .*", line)


def test_a_trial_that_wandb_stops_is_kept_and_no_failure(config, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.command.agent.Stopper", lambda: StoppedAfter(2))
    monkeypatch.setattr("bench.command.agent.open_sink", lambda *arguments, **options: NoSink())
    given = [f"{name}={value}" for name, value in GIVEN.items()]
    order = Order(config, "random-search", seed=0, overrides=(), data_root=None)
    trial = Trial(order, given, tmp_path, Place("trial0", "sweep0"))
    assert train_trial(trial) is None
    with pytest.raises(Interrupted):
        train_trial(replace(trial, place=None))
    (outcome,) = (read_outcome(path) for path in tmp_path.iterdir() if (path / "spec.json").exists())
    assert outcome.status == "interrupted"


def load_sweep_text(text, folder):
    path = folder / "sent.yaml"
    path.write_text(text)
    return as_wandb_reads(path)


@pytest.mark.slow
def test_the_agent_of_wandb_trains_the_trials(config, server, tmp_path, monkeypatch):
    found, _ = definition(config, "--method", "random-search", "--out", tmp_path / "runs")
    sweep_id = wandb.sweep(found)
    server.proposals = [GIVEN, {**GIVEN, "lr": 0.05}]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "wandb", "agent", f"someone/oho-bench/{sweep_id}"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    outcomes = list((tmp_path / "runs").glob("*/outcome.json"))
    assert [json.loads(path.read_text())["status"] for path in outcomes] == ["budget_reached"] * 2, answer.stderr
    assert same_training(config, tmp_path / "alone") in [path.parent.name for path in outcomes]
    assert [server.told[name]["sweep"] for name in ("trial0", "trial1")] == [sweep_id] * 2
    answer = CliRunner().invoke(app, ["sync", str(tmp_path / "runs")])
    assert answer.exit_code == 0, answer.output
    assert server.told.keys() == {"trial0", "trial1"}
