"""A number in a configuration is what it looks like; a truth value or a text in its place is refused, with its place."""

import math

import pytest
from helpers import experiment

from baselines.search import SearchOptions
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Options, Space

READ = {
    "3": 3, "3.0": 3, "+3": 3, "017": 17, "0o17": 15, "0x1F": 31, "1_000": 1000, "1e3": 1000, "1E+3": 1000, "1e-3": 1e-3,
    "1.e-3": 1e-3, ".5": 0.5, "2.5": 2.5,
}  # fmt: skip
"""YAML 1.2: 017 is decimal, and an exponent needs no point."""
NEVER = ["true", "off", "'3'", "'1e-3'", "''", "1:30", "10k", "5%", "1.000,5", "[3]", "{a: 3}", ".nan", ".inf"]
TOO_LARGE = ["1e39", "-1e300"]
WHOLE = [
    "threads", "evaluations", "gradient_batches", "budget.steps", "task.batch_size", "methods.0.step_size",
    "methods.1.milestones.0", "methods.2.trial_epochs", "methods.3.reset_every",
]  # fmt: skip
REAL = [
    "budget.seconds", "budget.epochs", "task.selection_epochs", "task.drift.over_epochs", "methods.0.lr", "methods.0.gamma",
    "methods.1.optimizer.momentum", "methods.2.over.weight_decay", "methods.3.meta_rates.lr", "methods.4.factors.1",
    "shocks.0.events.0.epoch", "shocks.0.events.0.set.lr", "shocks.0.events.0.scale.weight_decay",
    "shocks.0.events.0.rotate",
]  # fmt: skip
FLAGS = ["methods.3.compare_exact", "methods.1.optimizer.nesterov"]
METHODS = [
    "{name: step, step_size: 3}", "{name: multistep, milestones: [3], optimizer: {name: momentum, momentum: 0.5}}",
    "{name: random-search, trial_epochs: 1, over: {name: fixed}}", "{name: oho-global, meta_rates: {lr: 1e-3}}",
    "{name: population, factors: [0.5, 2], over: {name: fixed}}",
]  # fmt: skip
SHOCK = "{events: [{epoch: 1e-2, set: {lr: 0.1}, scale: {weight_decay: 2}, rotate: 5}]}"


def load(folder, text):
    given = [f"methods=[{', '.join(METHODS)}]"] if "methods" in text else []
    given += [f"shocks=[{SHOCK}]"] if "shocks" in text else []
    given += ["task.drift={rotate: 90, over_epochs: 2}"] if "drift" in text else []
    return experiment(folder, "fixed", overrides=[*given, text])


def refused(folder, key, value):
    with pytest.raises(ConfigError) as error:
        load(folder, f"{key}={value}")
    message = str(error.value)
    assert message.startswith(f"--set {key}={value}: "), message
    return message


@pytest.mark.parametrize("text", READ)
def test_a_number_may_be_written_as_yaml_writes_numbers(text, tmp_path):
    assert load(tmp_path, f"budget.epochs={text}").budget.amount == READ[text]
    if READ[text] == round(READ[text]):
        steps = load(tmp_path, f"budget.steps={text}").budget.amount
        assert (steps, type(steps)) == (READ[text], int)
    else:
        assert "a whole number is expected" in refused(tmp_path, "budget.steps", text)


@pytest.mark.parametrize("key", [*WHOLE, *REAL])
def test_what_is_no_number_is_refused_wherever_one_is_expected(key, tmp_path):
    expected = "a whole number is expected" if key in WHOLE else "a number is expected"
    for value in ("true", "'3'", "off"):
        assert expected in refused(tmp_path, key, value)
    for value in TOO_LARGE:
        refused(tmp_path, key, value)
    if key in WHOLE:
        assert "a whole number is expected" in refused(tmp_path, key, "2.5")


@pytest.mark.parametrize("value", [*NEVER, *TOO_LARGE])
def test_values_that_are_no_numbers(value, tmp_path):
    for key in ("threads", "budget.seconds"):
        refused(tmp_path, key, value)


@pytest.mark.parametrize("key", FLAGS)
def test_only_true_and_false_are_truth_values(key, tmp_path):
    for value in ("1", "0", "'true'", "on", "yes", "n", "1.0"):
        assert "true or false is expected" in refused(tmp_path, key, value)
    load(tmp_path, f"{key}=true")


@pytest.mark.parametrize("value", ["true", "[true]", "1.0", "2.5", "[0, .nan]"])
def test_seeds_are_whole_numbers(value, tmp_path):
    assert "whole numbers from 0 on are expected" in refused(tmp_path, "seeds", value)


def test_the_place_within_a_list_or_mapping_is_named(tmp_path):
    message = refused(tmp_path, "methods.4", "{name: population, factors: [0.5, '2'], over: {name: fixed}}")
    assert "methods.4.factors.1: a number is expected (given '2')" in message
    message = refused(tmp_path, "methods.3", "{name: oho-global, meta_rates: {lr: true}}")
    assert "methods.3.meta_rates.lr: a number is expected (given True)" in message


def test_options_of_a_method_of_ones_own_are_read_alike():
    class Own(Options):
        rate: float = 0.1
        kind: int | str = 3

    assert Own(rate=1, kind="x").rate == 1.0
    for given in ({"rate": True}, {"rate": "1"}, {"rate": math.inf}, {"kind": True}):
        with pytest.raises(ValueError, match="number"):
            Own(**given)
    with pytest.raises(ValueError, match="whole number"):
        SearchOptions(over=None, trial_epochs=True)


LAWS = {
    "low: true, high: 2": "low: a number is expected", "low: '1', high: 2": "low: a number is expected",
    "low: .nan, high: 2": "low: a finite number is expected", "low: 1, high: .inf": "high: a finite number is expected",
    "low: 1, high: 1e300": "high: a number from -3.4e+38 to 3.4e+38 is expected",
    "low: 1, high: 2, log: 1": "log: true or false is expected",
    "low: 1, high: 2, integer: yes": "integer: true or false is expected",
    "low: 1, high: 1": "low 1 must be below high 1", "low: 2, high: 1": "low 2 must be below high 1",
    "low: 0, high: 1, log: true": "low 0 must be positive on a logarithmic scale",
    "low: 5e-324, high: 1, log: true": "low 4.94066e-324 is too far below high 1",
    "low: 1.2, high: 1.8, integer: true": "there is no whole number from low 1.2 to high 1.8",
    "low: 1, high: 1e9, integer: true": "at most 1,000,000 whole numbers are allowed, none beyond 9007199254740992",
    "low: 1e30, high: 1.1e30, integer: true": "none beyond 9007199254740992",
    "choices: [1, 2]": "unknown key",
}  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_a_law_that_cannot_be_drawn_from_is_refused_with_its_place(law, tmp_path):
    (tmp_path / "own.yaml").write_text(f"name: own\nhyperparameters:\n  lr: {{{law}}}\n")
    with pytest.raises(ConfigError) as error:
        experiment(tmp_path, "fixed", overrides=["space=own"])
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/own.yaml:3:"), message
    assert LAWS[law] in message


WHOLE_LAW = "step_size: {low: 1, high: 5, integer: true}"
USES = {
    "step_size: {low: 1, high: 5}": "reaches 2.52786: a whole number is expected; give the law integer: true",
    "step_size: {low: 0, high: 5, integer: true}": "(OWN:5:3) has a law for step_size that reaches 0: ",
    "lr_: {low: 1, high: 5}": "OWN:5:3: unknown hyperparameter 'lr_'; did you mean 'lr'? allowed: beta1, ",
    "batch_size: {low: 1, high: 5, integer: true}": "OWN:5:3: unknown hyperparameter 'batch_size'; did you mean ",
    "warmup: {low: 0.1, high: 0.5}": "OWN:5:3: unknown hyperparameter 'warmup'; allowed: ",
    f"{WHOLE_LAW}\noptimizers: {{adam: {{lrr: {{low: 1, high: 2}}}}}}": "OWN:6:21: unknown hyperparameter 'lrr'",
    f"{WHOLE_LAW}\noptimizers: {{tpe-search: {{lr: {{low: 1, high: 2}}}}}}": "OWN:6:14: unknown optimizer 'tpe-search'; ",
    f"{WHOLE_LAW}\noptimizers: {{sgd: {{step_size: {{low: 0.5, high: 2}}}}}}": "(OWN:6:20) has a law for step_size",
}  # fmt: skip


@pytest.mark.parametrize("law", USES)
def test_a_law_that_a_method_cannot_use_is_refused_with_its_place(law, tmp_path):
    common = "lr: {low: 1e-3, high: 1}\n  weight_decay: {low: 0, high: 1}"
    (tmp_path / "own.yaml").write_text(f"name: own\nhyperparameters:\n  {common}\n  {law}\n")
    method = "{name: step, step_size: %s}" % ("null" if "step_size" in law else 3)
    with pytest.raises(ConfigError) as error:
        experiment(tmp_path, "fixed", overrides=["space=own", f"methods.0={method}"])
    assert USES[law].replace("OWN", f"{tmp_path}/own.yaml") in str(error.value), str(error.value)


def test_a_search_checks_the_law_of_its_trials_for_the_optimizer_that_it_repeats(tmp_path):
    common = "lr: {low: 1e-3, high: 1}\n  weight_decay: {low: 0, high: 1}"
    (tmp_path / "own.yaml").write_text(
        f"name: own\nhyperparameters:\n  {common}\noptimizers:\n"
        "  adam: {trial_epochs: {low: 1, high: 2, integer: true}}\n"
        "  adamw: {trial_epochs: {low: 0, high: 2, integer: true}}\n"
    )

    def search(optimizer):
        method = f"methods.0={{name: random-search, trial_epochs: null, over: {{name: fixed, optimizer: {optimizer}}}}}"
        return experiment(tmp_path, "fixed", overrides=["space=own", method])

    assert Space.model_validate(search("adam").specs[0]["space"]).of("adam").hyperparameters["trial_epochs"].integer
    with pytest.raises(ConfigError, match=r"own.yaml:7:\d+\) has a law for trial_epochs that reaches 0"):
        search("adamw")
    with pytest.raises(ConfigError, match="no law for trial_epochs"):
        search("sgd")
