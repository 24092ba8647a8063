"""The contract finds methods that break a rule, and says which; `oho-bench check` prints it."""

from types import MappingProxyType

import pytest
from helpers import ROOT
from typer.testing import CliRunner

from baselines.dowg import DistanceOverWeightedGradients
from bench.cli import app
from bench.testing import MethodContract

GOOD = (ROOT / "examples/own_method.py").read_text()
BROKEN = {
    "unseeded batches": (
        "state.batches.at(state.step)", "state.batches.at(__import__('random').randrange(14))",
        "test_the_same_seed_gives_the_same_records", "differ|in one run and",
    ),
    "a model that ignores the seed": (
        "model, lr = task.model(seed), ", "seed = 0; model, lr = task.model(seed), ",
        "test_another_seed_gives_other_records", "both seeds end in the same loss",
    ),
    "more steps than asked": (
        "train(state, steps, ledger", "train(state, steps + 1, ledger",
        "test_advance_makes_no_more_steps_than_asked", "`advance` made .* steps when asked for",
    ),
    "a schedule that knows the budget": (
        "state.schedule.step()", "state.optimizer.param_groups[0]['lr'] *= 1 - progress",
        "test_a_smaller_budget_is_replayed_exactly", "must say so by `State.spans_budget`",
    ),
    "a field that is not saved": (
        "schedule: CosineAnnealingWarmRestarts\n", "schedule: CosineAnnealingWarmRestarts = remade()\n",
        "test_a_saved_state_goes_on_bit_for_bit", "the state differs at step",
    ),
    "nothing selected": (
        "train(state, steps, ledger, update=update)", "update()\n        state.step += 1",
        "test_the_incumbent_improves_within_the_budget", "only the untrained model was selected",
    ),
    "no step, for ever": (
        "train(state, steps, ledger, update=update)", "pass",
        "test_the_same_seed_gives_the_same_records", "made no step in 101 calls in a row",
    ),
}  # fmt: skip


def written(folder, change):
    good, bad, *_ = change
    assert good in GOOD
    path = folder / "broken.py"
    path.write_text(GOOD.replace(good, bad))
    return f"{path}:METHOD"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name, tmp_path):
    *_, rule, sentence = BROKEN[name]
    place = written(tmp_path, BROKEN[name])
    contract = type("Contract", (MethodContract,), {"method": place, "options": {"lr": 0.1, "epochs": 2}})()
    with pytest.raises(AssertionError, match=sentence):
        getattr(contract, rule)()


def test_steps_that_no_graph_repeats_are_found(monkeypatch):
    update = DistanceOverWeightedGradients.update
    monkeypatch.setattr(DistanceOverWeightedGradients, "update", lambda self, loss: abs(float(update(self, loss))))
    contract = type("Contract", (MethodContract,), {"method": "dowg"})()
    with pytest.raises(AssertionError, match="the step asks the host what a tensor holds"):
        contract.test_a_graph_repeats_its_steps()


def test_a_state_that_cannot_be_saved_is_named(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(GOOD.replace("batches: Batches = remade()", "batches: Batches"))
    contract = type("Contract", (MethodContract,), {"method": f"{path}:METHOD", "options": {"lr": 0.1}})()
    with pytest.raises(TypeError, match=r"RestartsState.batches: Batches cannot be saved .*remade\(\)"):
        contract.test_a_saved_state_goes_on_bit_for_bit()


class TestRestarts(MethodContract):
    method = f"{ROOT / 'examples/own_method.py'}:METHOD"
    options = MappingProxyType({"epochs": 2})


def test_the_command_prints_a_line_a_rule(tmp_path):
    place = written(tmp_path, BROKEN["a model that ignores the seed"])
    answer = CliRunner().invoke(app, ["check", place, "--set", "lr=0.1"])
    assert answer.exit_code == 1
    lines = answer.output.splitlines()
    assert sum(line.startswith("ok    ") for line in lines) == len(MethodContract.rules()) - 1
    place_of_failure = lines.index("FAIL  Another seed gives another training.")
    assert lines[place_of_failure + 1].strip() == "both seeds end in the same loss"
    assert lines[-1] == f"{place} keeps {len(MethodContract.rules()) - 1} of {len(MethodContract.rules())} rules"


def test_what_a_method_raises_is_one_line_with_its_place(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(GOOD.replace("loss.backward()", "loss.backwards()"))
    answer = CliRunner().invoke(app, ["check", f"{path}:METHOD"])
    assert answer.exit_code == 1
    assert "Tensor' object has no attribute 'backwards'" in answer.output
    assert answer.output.count("\n") <= 2 * len(MethodContract.rules()) + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["./missing.py:METHOD"], "missing.py: cannot be read (No such file or directory)"),
        (["fixd"], "unknown method 'fixd'; did you mean 'fixed'?"),
        (["fixed", "--set", "lr=-1"], "oho-bench: lr: a number above 0 is expected (given -1)"),
        (["fixed", "--set", "lrr=1"], "oho-bench: unknown key 'lrr'; allowed: lr"),
        (["fixed", "--task", "digit"], "unknown task 'digit'"),
    ],
)
def test_a_mistake_is_one_line(arguments, said):
    answer = CliRunner().invoke(app, ["check", *arguments])
    assert answer.exit_code == 2
    assert said in answer.output
    assert "contract.yaml" not in answer.output
    assert answer.output.count("\n") == 1
