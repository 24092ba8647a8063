"""Mistakes in a configuration: one line with file, line and column, and what is allowed."""

import hashlib
import json
import re

import pytest
import torch
from helpers import ROOT, experiment, write_config

from bench.command.command_line import seeds_of
from bench.experiment.expansion import load_experiment
from bench.experiment.spec import method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.records import run_id

MISTAKES = {
    "unknown key": ("threads: 1", "thread: 1", r":7:1: unknown key 'thread'; allowed: .*threads"),
    "misspelt key": ("task: ", "tsak: ", r":3:1: unknown key 'tsak'; allowed: .*task"),
    "wrong type": ("evaluations: 6", "evaluations: many", r":8:1: evaluations: a whole number is ex.* \(given 'many'\)"),
    "unknown method": ("name: fixed", "name: fixd", r":11:6: unknown method 'fixd'; did you mean 'fixed'\?"),
    "negative budget": ("steps: 60", "steps: -60", r":4:10: budget.steps: a number of at least 1 is expected"),
    "unknown unit": ("steps: 60", "hours: 1", r":4:10: unknown key"),
    "two budgets": ("steps: 60", "steps: 60, epochs: 1", r":4:1: .*exactly one of seconds, plain_steps, steps, epochs"),
    "unknown task": ("digits-mlp", "digit-mlp", r":3:8: unknown task 'digit-mlp'; did you mean 'digits-mlp'"),
    "unknown figure": ("[distribution]", "[violins]", r":2:11: unknown figure 'violins'"),
    "a figure of shocks without any": (
        "[distribution]", "[anytime, resiliency]",
        r":2:20: figures: 'resiliency' shows how runs recover from shocks, and there are none under `shocks:`$",
    ),
    "a figure of a changing world without one": ("[distribution]", "[drift]", r":2:11: figures: 'drift' .* needs `drift`"),
    "a figure of errors that none measures": (
        "[distribution]", "[exactness]", r":2:11: figures: 'exactness' .* \(`compare_exact: true`\), and there are none$",
    ),
    "missing space": ("spaces/fair", "spaces/unfair", r":6:1: space: no file"),
    "method without name": ("{name: fixed}", "{lr: 0.1}", r":11:5: .*`name`"),
    "bad option": ("{name: fixed}", "{name: fixed, lr: -1}", r":11:19: methods.0.lr: a number above 0 .*given -1"),
    "twins": ("{name: fixed}", "{name: fixed}\n  - {name: fixed, lr: 0.1}", r":12:5: two methods are called 'Fixed'"),
    "search over nothing": ("{name: fixed}", "{name: random-search}", r":11:5: over: the method to repeat"),
    "search over OHO": (
        "{name: fixed}", "{name: random-search, over: {name: oho-global}}",
        r":11:34: random-search cannot repeat 'oho-global'; it can repeat: fixed",
    ),
    "population of DoG": ("{name: fixed}", "{name: population, over: {name: dog}}", r":11:31: population cannot re"),
    "optimizer that adam is not": ("{name: fixed}", "{name: adam, optimizer: sgd}", r":11:18: .*a mapping is expected"),
    "no milestones": ("{name: fixed}", "{name: multistep, milestones: []}", r":11:23: .*milestones: one or more are exp"),
    "a list in the place of a method": ("{name: fixed}", "[fixed]", r":11:5: methods.0: a name, or a mapping with "),
    "a list in the place of a task": ("{name: digits-mlp, selection_epochs: 1}", "[digits-mlp]", r":3:1: task: a name, or"),
    "an optimizer in the place of a method": (
        "{name: fixed}", "{name: adamw}",
        r":11:6: unknown method 'adamw'; 'adamw' is an optimizer, .*: \{name: fixed, optimizer: adamw\}; allowed: fixed, ",
    ),
    "a bare optimizer": ("{name: fixed}", "sgd", r":11:5: unknown method 'sgd'; .*\{name: fixed, optimizer: sgd\}"),
    "a task in the place of a method": ("{name: fixed}", "digits-mlp", r":11:5: unknown method .*'digits-mlp' is a task; "),
    "a method in the place of a task": ("digits-mlp", "fixed", r":3:8: unknown task 'fixed'; 'fixed' is a method; "),
    "a data set in the place of a task": ("digits-mlp", "digits", r"unknown task 'digits'; 'digits' is a data set; "),
    "a number for a budget": ("{steps: 60}", "60", r":4:1: budget: \{seconds: 20\}, .* is expected \(given 60\)"),
    "a budget in words": ("{steps: 60}", "20 s", r":4:1: budget: .*\{steps: 400\} or .* is expected \(given '20 s'\)"),
    "a budget in minutes": ("steps: 60", "minutes: 2", r":4:10: unknown key .*; allowed: seconds, plain_steps, steps, .*$"),
    "seeds in words": ("[0]", "many", r":5:1: seeds: whole numbers from 0 on are expected, .* \(given 'many'\)"),
    "a negative seed": ("[0]", "[0, -1]", r":5:1: seeds: whole numbers from 0 on are expected"),
    "no seeds": ("[0]", "4-2", r":5:1: seeds: one or more seeds are expected; the list or range is empty \(given '4-2'\)"),
    "seeds backwards beside others": ("[0]", "[0-2, 9-7]", r":5:1: seeds: one or more seeds are expected"),
    "an empty label": ("{name: fixed}", "{name: fixed, label: ''}", r":11:19: label: one line of 1 to 200 .*given ''"),
    "a label in two lines": ("{name: fixed}", '{name: fixed, label: "a\\nb"}', r":11:19: label: one line .*'a.nb'"),
    "labels that look alike": (
        "{name: fixed}", '{name: fixed, label: "Caf\\u0065\\u0301"}\n  - {name: fixed, lr: 1, label: "Caf\\u00e9 "}',
        r":12:5: two methods are called 'Café'",
    ),
    "an experiment that is a path": ("experiment: small", "experiment: ../x", r":1:1: experiment: .*dashes \(given '../x'"),
    "an experiment that is a device": ("experiment: small", "experiment: con", r":1:1: experiment: Windows has no file of"),
    "a project longer than W&B takes": (
        "{mode: disabled}", f"{{mode: disabled, project: {'p' * 129}}}", r":9:28: tracking.project: .*at most 128",
    ),
    "an unknown sink": (
        "{mode: disabled}", "{sinks: [wandb, tensorbord]}",
        r":9:27: tracking.sinks.1: unknown; did you mean 'tensorboard'\? allowed: wandb, trackio, tensorboard \(given",
    ),
    "a label of spaces": ("{name: fixed}", "{name: fixed, label: '   '}", r":11:19: label: .*not only spaces, is expected"),
    "methods that differ in their labels": (
        "{name: fixed}", "{name: fixed, label: A}\n  - {name: fixed, optimizer: sgd, label: B}",
        r":12:5: 'B' differs from 'A' in its label alone; leave one of the two methods out",
    ),
    "searches over methods that differ in their labels": (
        "{name: fixed}",
        "{name: sobol-search, over: {name: fixed, label: A}}\n  - {name: sobol-search, over: {name: fixed, label: B}}",
        r":12:5: 'Sobol search: B' differs from 'Sobol search: A' in its label alone",
    ),
    "pruner without trials": ("{name: fixed}", "{name: oho-global, pruner: median}", r":11:24: pruner: .*has no trials"),
    "unknown pruner": (
        "{name: fixed}", "{name: random-search, pruner: lazy, over: {name: fixed}}", r":11:27: .*'median', .*'lazy'",
    ),
    "schedule without its parameter": ("{name: fixed}", "{name: multistep}", r":11:5: key 'methods.0.milestones' is miss"),
    "unknown optimizer": ("{name: fixed}", "{name: fixed, optimizer: adma}", r":11:19: .*unknown name 'adma'; .*'adam'"),
    "option of another optimizer": (
        "{name: fixed}", "{name: fixed, optimizer: {name: sgd, momentum: 0.9}}",
        r":11:42: unknown key 'methods.0.optimizer.momentum'; allowed: name$",
    ),
    "nothing to search": (
        "{name: fixed}", "{name: random-search, over: {name: fixed, lr: 1, weight_decay: 0}}", r":11:5: .*nothing is left",
    ),
    "one open hyperparameter for CMA-ES": (
        "{name: fixed}", "{name: cma-search, over: {name: fixed, lr: 0.1}}",
        r":11:5: cma-search: .*needs at least two open hyperparameters",
    ),
    "law missing": ("{name: fixed}", "{name: random-search, trial_epochs: null, over: {name: fixed}}", r"no law for trial"),
    "more held out than there is": (
        "selection_epochs: 1", "validation_size: 1437", r":3:26: validation_size: at most 1,436 .*digits-mlp has 1,437",
    ),
    "a batch larger than what is left": (
        "selection_epochs: 1", "validation_size: 1400, batch_size: 38", r":3:49: batch_size: at most 37 .*\(given 38\)",
    ),
    "a validation batch larger than the split": (
        "selection_epochs: 1", "validation_size: 50", r":3:1: validation_batch_size: at most 50 is allowed.*\(given 100\)",
    ),
    "a method's validation batch": (
        "{name: fixed}", "{name: oho-full, validation_batch_size: 360}", r":11:22: validation_batch_size: at most 359 ",
    ),
    "a repeated method's validation batch": (
        "{name: fixed}", "{name: transplant, epochs: 4, over: {name: oho-full, validation_batch_size: 360}}",
        r":11:58: validation_batch_size: at most 359 ",
    ),
    "not YAML": ("seeds: [0]", "seeds: [0", r":\d+:\d+: "),
    "two documents": ("seeds: [0]", "seeds: [0]\n---\na: 1", r":6:1: expected a single document .* found another"),
    "duplicate key": ("seeds: [0]", "seeds: [0]\nseeds: [1]", r":6:1: .*duplicate key"),
}


def test_a_number_beyond_exact_ones_is_told_as_such(tmp_path):
    with pytest.raises(ConfigError, match=r"^--set budget.steps=9{20}: a whole number beyond 9007199254740992$"):
        experiment(tmp_path, "fixed", overrides=["budget.steps=" + "9" * 20])
    path = write_config(tmp_path, "fixed")
    text = path.read_text()
    line = text[: text.index("steps: 60")].count("\n") + 1
    column = len(text[: text.index("60")].split("\n")[-1]) + 1
    for number in ("9" * 20, "-" + "9" * 20, "0x" + "f" * 20, "9" * 5000):
        path.write_text(text.replace("steps: 60", f"steps: {number}"))
        with pytest.raises(ConfigError, match=rf"small.yaml:{line}:{column}: a whole number beyond 9007199254740992$"):
            load_experiment(path)


def test_a_folder_in_the_place_of_a_file_is_named_for_what_it_is(tmp_path):
    with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path))}: a folder; a YAML file is expected$"):
        load_experiment(tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_says_where_and_what_is_allowed(mistake, tmp_path):
    good, bad, expected = MISTAKES[mistake]
    path = write_config(tmp_path, "fixed")
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad, 1))
    with pytest.raises(ConfigError) as error:
        load_experiment(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path))
    assert re.search(expected, message), message


SEEDS = {
    "3": [3], "0-4": [0, 1, 2, 3, 4], '"0-2,7"': [0, 1, 2, 7], "0, 2": [0, 2], "[3, 1, 3]": [3, 1],
    "[0-1, '4,6']": [0, 1, 4, 6],
}  # fmt: skip


@pytest.mark.parametrize("text", SEEDS)
def test_seeds_are_understood_alike_in_a_file_and_on_the_command_line(text, tmp_path):
    path = write_config(tmp_path, "fixed")
    path.write_text(path.read_text().replace("seeds: [0]", f"seeds: {text}"))
    assert [spec["seed"] for spec in load_experiment(path).specs] == SEEDS[text]
    if "[" not in text:
        assert list(seeds_of(text.strip('"'))) == SEEDS[text]


def test_a_bare_name_is_what_it_is_with_nothing_said(tmp_path):
    def specs(task, *methods, overrides=()):
        path = write_config(tmp_path, "fixed")
        lines = "".join(f"\n  - {method}" for method in methods)
        text = path.read_text().replace("{name: digits-mlp, selection_epochs: 1}", task)
        path.write_text(text.replace("\n  - {name: fixed}", lines))
        return load_experiment(path, overrides=overrides).specs

    spelt_out = specs("{name: digits-mlp}", "{name: fixed}", "{name: random-search, over: {name: step}}")
    assert specs("digits-mlp", "fixed", "{name: random-search, over: step}") == spelt_out
    assert specs("mnist-mlp", "cosine", overrides=["task=digits-mlp", "methods.0=fixed"]) == spelt_out[:1]
    changed = specs("digits-mlp", "fixed", overrides=["methods.0.lr=0.5", "task.width=8"])[0]
    assert (changed["method"]["lr"], changed["task"]["width"]) == (0.5, 8)


def test_a_space_is_a_file_beside_the_experiment_or_a_shipped_one(tmp_path):
    def space(name):
        return experiment(tmp_path, "fixed", overrides=[f"space={name}"]).specs[0]["space"]

    assert space("fair") == space(ROOT / "configs/spaces/fair")
    assert space("published-random")["name"] == "published-random"
    laws = "{lr: {low: 1e-3, high: 1}, weight_decay: {low: 0, high: 1}}"
    (tmp_path / "fair.yaml").write_text(f"name: own\nhyperparameters: {laws}\n")
    assert space("fair")["name"] == "own"


SPACES = {
    "a law the method cannot use": (
        "lr: {low: -1, high: 1}", r":11:5: space 'own' \(.*own.yaml:3:3\) has a law for lr that reaches -1: .*0",
    ),
    "a law for one optimizer only": (
        "weight_decay: {low: 0, high: 1}\noptimizers: {adam: {lr: {low: 1e-3, high: 1}}}", r":11:5: .*no law for lr",
    ),
    "a law that reaches no epochs": (
        "trial_epochs: {low: 0, high: 1, integer: true}", r"--set .*trial_epochs that reaches 0: a number of at least 1",
    ),
    "a law with parts of epochs": ("trial_epochs: {low: 1, high: 9}", r".*trial_epochs that reaches 4.05.*: .*integer"),
    "a law with parts of steps": ("step_size: {low: 1, high: 5}", r"--set .*step_size that reaches 2.5.*: .*integer"),
    "no whole number": ("lr: {low: 0.2, high: 0.8, integer: true}", r"own.yaml:3:3: .*no whole number from low 0.2"),
    "bounds the wrong way": ("lr: {low: 1, high: 0}", r"own.yaml:3:3: .*low 1 must be below high 0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SPACES)
def test_a_space_that_cannot_be_used_is_refused(mistake, tmp_path):
    laws, expected = SPACES[mistake]
    (tmp_path / "own.yaml").write_text(f"name: own\nhyperparameters:\n  {laws}\n")
    fixed = [] if "optimizers" in laws else ["methods.0.weight_decay=0"]
    if laws.startswith("trial_epochs"):
        fixed = ["methods.0={name: random-search, trial_epochs: null, over: {name: fixed, lr: 1, weight_decay: 0}}"]
    elif laws.startswith("step_size"):
        fixed = ["methods.0={name: step, lr: 1, weight_decay: 0}"]
    with pytest.raises(ConfigError) as error:
        experiment(tmp_path, "fixed", overrides=["space=own", *fixed])
    assert re.search(expected, str(error.value)), str(error.value)


def test_a_missing_package_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r":11:5: method 'prodigy' needs the package prodigyopt; install it with: pip"):
        experiment(tmp_path, "prodigy")


def test_a_space_may_have_laws_of_its_own_for_an_optimizer(tmp_path):
    drawn = {}
    for spec in load_experiment(
        write_config(tmp_path, "fixed", "schedule-free-sgd"), seeds=range(8)
    ).specs:
        task, _ = task_of(spec, torch.device("cpu"), None)
        drawn.setdefault(spec["method"]["name"], []).append(method_of(spec).init(task, spec["seed"]).hyper["lr"])
    assert min(drawn["fixed"]) < 1e-3 <= min(drawn["schedule-free-sgd"])
    ranks = [sorted(range(8), key=values.__getitem__) for values in drawn.values()]
    assert ranks[0] == ranks[1]


WRONG = ["budget", "budgte.steps=3", "budget.steps=-1", "methods.7.lr=1", "nothing=1", "=3", "seeds.0.a=1"]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_override_is_named(text, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"--set {text}: ")):
        experiment(tmp_path, "fixed", overrides=[text])


def test_an_override_beyond_a_list_says_how_long_it_is(tmp_path):
    with pytest.raises(ConfigError, match="there is no 7 to go into; allowed are 0 to 1"):
        experiment(tmp_path, "fixed", "adam", overrides=["methods.7.lr=1"])


def test_an_override_of_the_budget_replaces_its_unit(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["budget.epochs=2.5"]).specs[0]
    assert spec["budget"] == {"unit": "epochs", "amount": 2.5}


def test_numbers_are_read_as_numbers(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["methods.0.lr=1e-3"]).specs[0]
    assert spec["method"]["lr"] == 1e-3


def test_run_id_depends_on_all_but_labels(tmp_path):
    base = experiment(tmp_path, "fixed").specs[0]
    assert run_id({**base, "method": {**base["method"], "label": "Other"}}) == run_id(base)
    for change in ({"seed": 1}, {"budget": {"unit": "steps", "amount": 61}}, {"device": "cuda"}):
        assert run_id({**base, **change}) != run_id(base)


def test_run_ids_are_the_hashes_of_the_specs_as_canonical_json(tmp_path):
    """Also those of many specs at once, which share their parts."""
    many = experiment(tmp_path, "fixed", "random-search", seeds=range(3))
    assert len(many.ids) == 6
    for spec, identity in zip(many.specs, many.ids, strict=True):
        task = {key: value for key, value in spec["task"].items() if key not in ("label", "family", "units")}
        method = {key: value for key, value in spec["method"].items() if key not in ("label", "family")}
        if method.get("over"):
            method["over"] = {key: value for key, value in method["over"].items() if key not in ("label", "family")}
        text = json.dumps({**spec, "task": task, "method": method}, sort_keys=True, separators=(",", ":"))
        assert identity == run_id(spec) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_methods_of_one_seed_start_from_the_same_draw(tmp_path):
    hypers = []
    for spec in experiment(tmp_path, "fixed", "cosine", "oho-global", "random-search").specs:
        task, _ = task_of(spec, torch.device("cpu"), None)
        hypers.append(method_of(spec).init(task, spec["seed"]).hyper["lr"])
    assert len(set(hypers)) == 1
