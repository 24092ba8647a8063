"""Every registered method keeps the contract, on real data."""

import pytest
import torch
from helpers import KINDS, METHOD_LINES
from ruamel.yaml import YAML

from bench.experiment.registries import METHODS
from bench.experiment.spec import task_of
from bench.testing import MethodContract as _Contract  # by another name pytest would run it by itself, too

ASKED_OF_ALL = {"test_a_saved_state_goes_on_bit_for_bit", "test_a_smaller_budget_is_replayed_exactly"}
"""Of methods that share the code of another one as well, for they depend on its options."""


AVERAGED = {
    "fixed": "{name: fixed, average: 20}",
    "population": "{name: population, members: 3, over: {name: fixed, optimizer: adam, average: {name: uniform}}}",
    "oho-full": "{name: oho-full, meta_rate: 1e-3, average: 20, curvature_fraction: 0.25, update_every: 4}",
    "transplant": "{name: transplant, epochs: 4, over: {name: oho-global, meta_rate: 1e-3, average: schedule-free}}",
}
"""Methods with an average of the weights, which the model holds when it is saved and evaluated.

Transplant's training is one by OHO as well, in the hands of a method that is tried without an average."""


def slow(rule):
    def asked(self):  # pytest takes a lambda for an argument of the mark
        getattr(_Contract, rule)(self)

    return pytest.mark.slow(asked)


def contract(name, line):
    options = YAML(typ="safe").load(line)
    del options["name"]
    repeated = set() if name in KINDS else _Contract.rules().keys() - ASKED_OF_ALL
    rules = {rule: slow(rule) for rule in sorted(repeated)}
    asked = {
        "method": name, "options": options, "steps": 60 if name == "transplant" else 40,
        "smaller_budgets": (10, 33) if name in KINDS else (33,),
    }  # fmt: skip
    return type(f"Test_{name}", (_Contract,), {**asked, "__module__": __name__, **rules})


CONTRACTS = {name: contract(name, line) for name, line in METHOD_LINES.items()}
globals().update({found.__name__: found for found in CONTRACTS.values()})


@pytest.mark.parametrize("rule", sorted(ASKED_OF_ALL))
@pytest.mark.parametrize("name", ["fixed", "population", "oho-full", pytest.param("transplant", marks=pytest.mark.slow)])
def test_with_an_average(name, rule):
    getattr(contract(name, AVERAGED[name])(), rule)()


def test_every_registered_method_is_under_contract():
    assert set(METHOD_LINES) == set(METHODS)


def test_no_split_holds_examples_of_the_test_split():
    task, test = task_of(CONTRACTS["fixed"].spec(), torch.device("cpu"), None)
    held = {tuple(row.tolist()) for row in test.inputs}
    for split in (task.train, task.validation):
        assert sum(tuple(row.tolist()) in held for row in split.inputs) <= 2  # digits has a few images twice
