"""Worlds that turn: inputs follow the run's steps, selection judges in the present world, and resuming changes nothing."""

import pytest
import torch
from helpers import experiment, run_one, stopped

from baselines.training import Training
from bench.command.audit import audit_run
from bench.experiment.spec import method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Incumbent, Trial, adopt, select
from bench.protocol.ledger import Ledger
from bench.protocol.world import rotated
from bench.records import Status, read_run, run_id

CPU = torch.device("cpu")
CLOCKS = ("counted_seconds", "wall_seconds")
TURNING = "task.drift={rotate: 360, over_epochs: 10}"


def drifting(folder, method, *overrides):
    """On digits, ten steps an epoch, 3.6 degrees a step."""
    return experiment(folder, method, overrides=[TURNING, *overrides]).specs[0]


def timeless(run):
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in run.records]


def test_batches_and_evaluations_are_those_of_the_present_step(tmp_path):
    task, test = task_of(drifting(tmp_path, "fixed"), CPU, None)
    still, _ = task_of(experiment(tmp_path, "fixed").specs[0], CPU, None)
    model = task.model(0)
    for step, degrees in ((0, 0.0), (25, 90.0), (101, 3.6)):
        task.world.step = step
        for batches in ("train_batches", "validation_batches"):
            plain = getattr(still, batches)(0).at(7)
            torch.testing.assert_close(getattr(task, batches)(0).at(7).inputs, rotated(plain.inputs, degrees))
        turned = test._replace(inputs=rotated(test.inputs, degrees))
        assert task.evaluate_as_is(model, test).loss == pytest.approx(still.evaluate_as_is(model, turned).loss, abs=1e-6)


def test_updates_count_the_world_on(tmp_path):
    spec = drifting(tmp_path, "random-search")
    task, _ = task_of(spec, CPU, None)
    method = method_of(spec)
    state = method.init(task, 0)
    task.world.step = 0
    for _ in range(5):  # over several trials
        method.advance(state, steps=7, progress=0.0, ledger=Ledger())
        assert task.world.step == state.step
    assert state.trial > 0


@pytest.mark.parametrize("method", ["oho-global", "random-search", "population"])
def test_an_interrupted_run_goes_on_bit_for_bit(method, tmp_path):
    spec = drifting(tmp_path, method)
    assert 0 < stopped(spec, tmp_path / "cut", 4).outcome.steps < 60
    for folder in ("cut", "whole"):
        assert run_one(spec, tmp_path / folder).status is Status.BUDGET_REACHED
    cut, whole = (read_run(tmp_path / folder / run_id(spec)) for folder in ("cut", "whole"))
    assert timeless(cut) == timeless(whole)


def test_a_method_is_made_again_in_the_world_of_the_first_step(tmp_path, monkeypatch):
    spec, steps, made = drifting(tmp_path, "fixed"), [], Training.start
    stopped(spec, tmp_path, 4)
    monkeypatch.setattr(Training, "start", lambda *given: (steps.append(given[1].world.step), made(*given))[1])
    run_one(spec, tmp_path)
    assert steps == [0, 0]  # the warm-up's and the run's


@pytest.mark.parametrize("method", ["fixed", "random-search", "population"])
def test_the_incumbent_is_judged_in_the_present_world(method, tmp_path):
    """Ten validations of a fast turn: a loss from long ago is never one to beat."""
    lr = {"fixed": "methods.0.lr=0.5"}.get(method, "methods.0.over.weight_decay=0.001")
    spec = drifting(tmp_path, method, lr, "budget.steps=100", "evaluations=10")
    run_one(spec, tmp_path)
    found = read_run(tmp_path / run_id(spec)).incumbents
    assert [record["step"] for record in found] == list(range(0, 101, 10))
    losses = [record["validation_loss"] for record in found]
    assert losses != sorted(losses, reverse=True)


def test_an_older_model_stays_where_it_is_still_the_better_one(tmp_path):
    spec = drifting(tmp_path, "fixed", "methods.0.lr=0.5")
    task, _ = task_of(spec, CPU, None)
    method = method_of(spec)
    state = method.init(task, 0)
    for _ in range(6):
        method.advance(state, steps=10, progress=0.0, ledger=Ledger())
    best = state.incumbent
    state.model = task.model(1)
    task.world.step += 1
    loss = select(state)
    assert state.incumbent.step == best.step
    assert state.incumbent.validation_loss != best.validation_loss
    assert state.incumbent.validation_loss < loss


def test_a_model_that_wins_later_keeps_the_step_at_which_it_was_selected(tmp_path):
    """Two trials of ten steps: the first one's model is presented once the known one's loss has risen above its own."""
    spec = drifting(tmp_path, "random-search")
    task, _ = task_of(spec, CPU, None)
    state = method_of(spec).init(task, 0)
    task.world.step = state.step = 25
    state.trial, state.trials = 2, [Trial({}, 1.0, 10, "finished"), Trial({}, 1.0, 10, "finished")]
    weights = task.model(0).state_dict()
    state.incumbent = Incumbent(9.0, weights, 20, 1, judged=25, found=20)
    state.inner.incumbent = Incumbent(1.0, weights, 7, 0, judged=25, found=7)
    adopt(state, state.inner)
    assert (state.incumbent.step, state.incumbent.trial) == (7, 0)
    state.incumbent = None
    state.inner.incumbent = Incumbent(1.0, weights, 5, 0, judged=25, found=25)
    adopt(state, state.inner)
    assert (state.incumbent.step, state.incumbent.trial) == (25, 2)


def test_a_drifting_run_is_audited_in_its_own_worlds(tmp_path):
    spec = drifting(tmp_path, "oho-global", "budget.steps=30")
    run_one(spec, tmp_path)
    said = audit_run(tmp_path / run_id(spec), steps=30, at=None, data_root=None)
    errors = [float(word) for line in said.splitlines()[1:] for word in line.split() if "e-" in word]
    assert "hypergradient after step 30" in said
    assert min(errors) < 1e-4


def test_only_images_turn(tmp_path):
    with pytest.raises(ConfigError, match=r"diabetes-mlp cannot be done .* it has no images, and `drift` turns images"):
        experiment(tmp_path, "fixed", overrides=["task.name=diabetes-mlp", TURNING])
