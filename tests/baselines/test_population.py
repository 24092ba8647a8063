"""Population-based training: who copies whom, and what is varied."""

import torch

from baselines.population import Population, PopulationOptions
from baselines.training import FixedOptions, Training
from bench.experiment.registries import TASKS
from bench.protocol.ledger import Ledger
from bench.protocol.space import Dimension, Space
from bench.tasks.entry import build_task

LAWS = {
    "lr": Dimension(low=1e-4, high=0.2, log=True),
    "weight_decay": Dimension(low=1e-6, high=1e-2, log=True),
}


def population(space=LAWS, groups=None, **options):
    over = Training(FixedOptions(optimizer="momentum", groups=groups), Space(name="test", hyperparameters=space))
    return Population(PopulationOptions(over=None, **options), over)


def digits():
    entry = TASKS["digits-mlp"]
    return build_task("digits-mlp", entry, entry.defaults, device=torch.device("cpu"))[0]


def until(method, state, ready):
    while not ready(state):
        method.advance(state, steps=100, progress=0.0, ledger=Ledger())
    return state


def weights(member):
    return torch.cat([parameter.detach().flatten() for parameter in member.model.parameters()])


def slots(member):
    return torch.cat([slot["momentum_buffer"].flatten() for slot in member.stepper.optimizer.state.values()])


def hyper(member):
    return {name: member.options.values()[name] for name in LAWS}


def test_the_worst_go_on_from_the_best_with_hyperparameters_near_theirs():
    method, task = population(members=5, redraw=0.0), digits()
    state = method.init(task, 0)
    while state.step < 5 * task.steps_per_epoch - 1:
        steps = 5 * task.steps_per_epoch - 1 - state.step
        method.advance(state, steps=steps, progress=0.0, ledger=Ledger())
    before = [(weights(member), hyper(member)) for member in state.members]
    for _ in ("the last step", "evolution"):
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
    assert state.generation == 1
    best, worst = (pick(range(5), key=state.losses.__getitem__) for pick in (min, max))
    assert torch.equal(weights(state.members[worst]), weights(state.members[best]))
    assert torch.equal(slots(state.members[worst]), slots(state.members[best]))
    assert state.members[worst].stepper.optimizer is not state.members[best].stepper.optimizer
    for name, law in LAWS.items():
        factor = hyper(state.members[worst])[name] / before[best][1][name]
        clipped = hyper(state.members[worst])[name] in (law.low, law.high)
        assert clipped or min(abs(factor - 0.8), abs(factor - 1.25)) < 1e-9
    group = state.members[worst].stepper.optimizer.param_groups[0]
    assert group["weight_decay"] == hyper(state.members[worst])["weight_decay"]
    for number in set(range(5)) - {worst, 4}:  # member 4 has made its last step meanwhile
        assert torch.equal(weights(state.members[number]), before[number][0])
        assert hyper(state.members[number]) == before[number][1]


def test_members_train_equally_long_and_each_interval_is_a_trial():
    method, task = population(members=3, interval_epochs=2), digits()
    state = until(method, method.init(task, 0), lambda s: s.generation == 2)
    assert [member.step for member in state.members] == [4 * task.steps_per_epoch] * 3
    assert [trial.steps for trial in state.trials] == [2 * task.steps_per_epoch] * 6
    assert state.step == 12 * task.steps_per_epoch
    assert state.incumbent.validation_loss == min(trial.validation_loss for trial in state.trials)


def test_a_member_that_diverged_is_replaced_whatever_the_fraction():
    wild = {**LAWS, "lr": Dimension(low=1e-2, high=1e30, log=True)}
    method, task = population(wild, members=6, redraw=0.0), digits()
    state = until(method, method.init(task, 1), lambda s: s.generation == 1)
    diverged = {number for number, trial in enumerate(state.trials) if trial.status == "diverged"}
    assert len(diverged) > 2
    assert all(torch.isfinite(weights(member)).all() for member in state.members)


def test_a_member_that_copied_records_what_a_fresh_one_does():
    method, task = population(members=2, redraw=0.0, groups=1), digits()
    state = method.init(task, 0)
    fresh = [set(member.hyper) for member in state.members]
    until(method, state, lambda s: s.generation == 1)
    assert [set(member.hyper) for member in state.members] == fresh
    for member in state.members:
        values = member.options.values()
        for name in LAWS:
            assert member.hyper[name] == [values[f"{name}_weights_1"], values[f"{name}_biases_1"]]
