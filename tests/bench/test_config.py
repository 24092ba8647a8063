"""Mistakes in a configuration: one line with file, line and column, and what is allowed."""

import re

import pytest
import torch
from helpers import experiment, write_config

from bench.config import load_experiment
from bench.records import run_id
from bench.spec import method_of, task_of
from bench.yaml_file import ConfigError
from reports.registry import FIGURES

MISTAKES = {
    "unknown key": ("threads: 1", "thread: 1", r":7:1: unknown key 'thread'; allowed: .*threads"),
    "misspelt key": ("task: ", "tsak: ", r":3:1: unknown key 'tsak'; allowed: .*task"),
    "wrong type": ("evaluations: 6", "evaluations: many", r":8:1: evaluations: .*integer.* \(given 'many'\)"),
    "unknown method": ("name: fixed", "name: fixd", r":11:6: unknown method 'fixd'; did you mean 'fixed'\?"),
    "negative budget": ("steps: 60", "steps: -60", r":4:10: budget.steps: .*greater than or equal to 1"),
    "unknown unit": ("steps: 60", "hours: 1", r":4:10: unknown key"),
    "two budgets": ("steps: 60", "steps: 60, epochs: 1", r":4:1: .*exactly one of seconds, steps, epochs"),
    "unknown task": ("digits-mlp", "digit-mlp", r":3:8: unknown task 'digit-mlp'; did you mean 'digits-mlp'"),
    "unknown figure": ("[distribution]", "[violins]", r":2:11: unknown figure 'violins'"),
    "missing space": ("spaces/fair", "spaces/unfair", r":6:1: space: no file"),
    "method without name": ("{name: fixed}", "{lr: 0.1}", r":11:5: .*`name`"),
    "bad option": ("{name: fixed}", "{name: fixed, lr: -1}", r":11:19: methods.0.lr: .*greater than 0 \(given -1"),
    "twins": ("{name: fixed}", "{name: fixed}\n  - {name: fixed, lr: 0.1}", r":12:5: two methods are called 'Fixed'"),
    "search over nothing": ("{name: fixed}", "{name: random-search}", r":11:5: over: the method to search over"),
    "search over OHO": ("{name: fixed}", "{name: random-search, over: {name: oho-global}}", r"unknown method to search"),
    "not YAML": ("seeds: [0]", "seeds: [0", r":\d+:\d+: "),
    "duplicate key": ("seeds: [0]", "seeds: [0]\nseeds: [1]", r":6:1: .*duplicate key"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_says_where_and_what_is_allowed(mistake, tmp_path):
    good, bad, expected = MISTAKES[mistake]
    path = write_config(tmp_path, "fixed")
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad, 1))
    with pytest.raises(ConfigError) as error:
        load_experiment(path, figures=FIGURES)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path))
    assert re.search(expected, message), message


@pytest.mark.parametrize("text", ["budget", "budget.steps=-1", "methods.7.lr=1", "nothing=1", "=3", "seeds.0.a=1"])
def test_a_wrong_override_is_named(text, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"--set {text}: ")):
        experiment(tmp_path, "fixed", overrides=[text])


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


def test_methods_of_one_seed_start_from_the_same_draw(tmp_path):
    hypers = []
    for spec in experiment(tmp_path, "fixed", "cosine", "adam", "oho-global", "random-search").specs:
        task, _ = task_of(spec, torch.device("cpu"), None)
        hypers.append(method_of(spec).init(task, spec["seed"]).hyper["lr"])
    assert len(set(hypers)) == 1
