"""OHO among what surrounds an optimizer: groups, values shown, hooks, schedulers, copies, micro-batches."""

import copy
import math
import weakref
from functools import partial

import pytest
import torch
from small_trainings import RULES, loss_of, make_problem
from torch.optim import lr_scheduler

import oho


def steps(optimizer, model, batches, count=4):
    for batch in batches[:count]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))


def body_and_head(model, *, body, head):
    return [{"params": model[0].named_parameters("0"), **body}, {"params": model[2].named_parameters("2"), **head}]


def test_groups_show_the_values_of_their_sets_after_each_step():
    model, batches = make_problem()
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.1, 1e-3), sets="full")
    assert isinstance(optimizer, torch.optim.Optimizer)
    group = optimizer.param_groups[0]
    assert group["params"] == [model[0].weight]
    assert optimizer.flat_hyper()["lr/0.weight"] == 0.1
    for _ in range(3):
        before = group["lr"]
        steps(optimizer, model, batches, count=1)
        assert group["lr"] != before
        for name, values in optimizer.hyper.items():
            assert [shown[name] for shown in optimizer.param_groups] == values.tolist()
            assert [optimizer.flat_hyper()[f"{name}/{label}"] for label in optimizer.set_map.labels] == values.tolist()
    optimizer.hyper["lr"] = {"2.bias": 0.5}
    assert optimizer.param_groups[3]["lr"] == 0.5
    assert group["lr"] == optimizer.hyper["lr"][0] != 0.5


def test_members_have_a_number_each():
    weight = torch.nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    optimizer = oho.OHO([{"params": weight, "lr": torch.tensor([0.1, 0.2])}], oho.SGD(0.3), members=2)
    optimizer.step(lambda: weight.square().sum(1), lambda: weight.square().sum(1))
    assert optimizer.param_groups[0]["lr"] == optimizer.hyper["lr"][:, 0].tolist()
    first, second = (optimizer.flat_hyper()[f"lr/group0/{member}"] for member in range(2))
    assert 0.1 < first < second


@pytest.mark.parametrize("rule", ["momentum", "adamw"])
def test_a_group_tunes_what_it_names_and_no_more(rule):
    """Its hypergradients are those that it has where everything is tuned."""
    rule, found = RULES[rule], {}
    for kind in ("all", "some"):
        model, batches = make_problem()
        body, head = ({}, {}) if kind == "all" else ({"tune": ("lr",)}, {"tune": ("lr", "weight_decay")})
        optimizer = oho.OHO(body_and_head(model, body=body, head=head), rule, meta=oho.MetaSGD(0.0))
        steps(optimizer, model, batches)
        found[kind] = optimizer.hypergradient
    assert optimizer.rule.tune == ("lr", "weight_decay")
    assert len(optimizer.state_dict()["influence"]["theta"]) == 3
    torch.testing.assert_close(found["some"]["lr"], found["all"]["lr"], rtol=1e-12, atol=0)
    untuned, tuned = found["some"]["weight_decay"]
    assert untuned.isnan()
    torch.testing.assert_close(tuned, found["all"]["weight_decay"][1], rtol=1e-12, atol=0)


def test_a_group_with_values_of_its_own_may_keep_them():
    model, batches = make_problem()
    body = {"name": "body", "lr": 0.02, "weight_decay": -1.0, "tune": ()}
    optimizer = oho.OHO(body_and_head(model, body=body, head={"name": "head"}), oho.Momentum(0.1, 1e-2))
    assert [group["name"] for group in optimizer.param_groups] == list(optimizer.set_map.labels) == ["body", "head"]
    steps(optimizer, model, batches)
    (kept, moved), (decay, _) = optimizer.hyper["lr"].tolist(), optimizer.hyper["weight_decay"].tolist()
    assert (kept, decay) == (0.02, -1.0)
    assert moved != 0.1
    assert optimizer.param_groups[1]["momentum"] == 0.9
    found = oho.audit(model, optimizer, [(lambda b=b: loss_of(model, b),) * 2 for b in batches[4:7]])
    assert found.relative_error["lr"][1] < 1e-10


def test_a_value_that_a_group_gives_as_zero_stays_zero():
    """Programs say so that biases do not decay, and that a part does not move."""
    model, batches = make_problem()
    optimizer = oho.OHO(body_and_head(model, body={"lr": 0, "weight_decay": 0.0}, head={}), oho.AdamW(1e-2))
    before = model[0].weight.detach().clone()
    steps(optimizer, model, batches)
    assert [value[0].item() for name, value in optimizer.hyper.items() if name in ("lr", "weight_decay")] == [0, 0]
    assert torch.equal(model[0].weight, before)
    assert optimizer.param_groups[0]["tune"] == ()
    asked = {"weight_decay": 0.0, "tune": ("weight_decay",)}
    optimizer = oho.OHO(body_and_head(model, body=asked, head={}), oho.AdamW(1e-2))
    assert optimizer.hyper["weight_decay"][0] > 0


def test_groups_are_divided_further():
    model, _ = make_problem()
    optimizer = oho.OHO(body_and_head(model, body={"lr": 0.02}, head={}), oho.SGD(0.1), sets="full")
    assert optimizer.hyper["lr"].tolist() == [0.02, 0.02, 0.1, 0.1]


def test_a_rule_may_have_a_value_for_each_set():
    model, _ = make_problem()
    rule = oho.SGD({"weight": 0.1, "bias": 0.2}, weight_decay=1e-3)
    optimizer = oho.OHO(model.named_parameters(), rule, sets=lambda name: name.split(".")[1])
    assert optimizer.hyper["lr"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_micro_batches_make_the_step_of_the_whole_batch(discount):
    def trained(given):
        model, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), RULES["momentum"], meta=oho.MetaAdam(0.01), discount=discount)
        for number in range(4):
            parts = [partial(loss_of, model, batch) for batch in batches[number : number + 3]]
            held = [partial(loss_of, model, batch) for batch in batches[10:12]]
            loss = optimizer.step(given(parts), given(held))
        return [loss, *optimizer.hyper.values(), *model.parameters()]

    whole = trained(lambda parts: lambda: sum(part() for part in parts) / len(parts))
    for found, expected in zip(trained(list), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)


def test_a_micro_batch_is_forgotten_before_the_next():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    alive, calls = [], []

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor.detach()
            alive.append(weakref.ref(self))

    def closure():
        assert [reference for reference in alive if reference() is not None] == []
        calls.append(len(alive))
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            return loss_of(model, batches[0])

    optimizer.step([closure] * 3, [closure] * 2)
    assert calls[1] > 0
    assert len(calls) >= 5  # the first may be called again, to be checked


def test_hooks_are_called_around_steps_and_states():
    model, batches = make_problem()
    optimizer, calls = oho.OHO(model.parameters(), oho.SGD(0.1)), []
    optimizer.register_step_pre_hook(lambda given, args, kwargs: calls.append(("before", given.steps)))
    optimizer.register_step_post_hook(lambda given, args, kwargs: calls.append(("after", given.steps)))
    optimizer.register_state_dict_post_hook(lambda given, state: {**state, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda given, state: calls.append(("load", state["extra"])))
    steps(optimizer, model, batches, count=1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == [("before", 0), ("after", 1), ("load", 1)]


def test_schedulers_of_a_tuned_rate_are_refused_with_a_reason():
    model, batches = make_problem()
    optimizer = oho.OHO(body_and_head(model, body={"tune": ()}, head={}), oho.SGD(0.1))
    reason = r"^param_groups entry 'group1': lr follows its hypergradient, .* leave 'lr' out of tune; [^\n]*$"
    for make in (lambda: lr_scheduler.StepLR(optimizer, 1), lambda: lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=9)):
        with pytest.raises(ValueError, match=reason):
            make()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    plateau.step(1.0)
    with pytest.raises(ValueError, match=reason):
        plateau.step(1.0)
    for change in ({"lr": 0.3}, {"params": []}, {"tune": ()}):
        with pytest.raises(ValueError, match="param_groups entry 'group1'"):
            optimizer.param_groups[1].update(change)
    steps(optimizer, model, batches, count=1)  # the refused ones have changed nothing that is tuned
    assert optimizer.hyper["lr"][1] == optimizer.param_groups[1]["lr"] != 0.3


def test_a_scheduler_moves_a_rate_that_is_not_tuned():
    model, batches = make_problem()
    twin = copy.deepcopy(model)
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1, 1e-2, tune=()))
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 5)
    for number, batch in enumerate(batches[:4]):
        optimizer.step(lambda b=batch: loss_of(model, b))
        schedule.step()
        rate = 0.05 * (1 + math.cos(math.pi * number / 5))
        weights = list(twin.parameters())
        gradient = torch.autograd.grad(loss_of(twin, batch), weights)
        with torch.no_grad():
            for weight, slope in zip(weights, gradient, strict=True):
                weight -= rate * (slope + 1e-2 * weight)
    assert optimizer.hyper["lr"].item() == optimizer.param_groups[0]["lr"] == schedule.get_last_lr()[0] < 0.1
    for parameter, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-11, atol=1e-14)


def test_a_scheduled_training_resumes_bit_for_bit():
    """The scheduler reads the rate of a step and makes the next of it: what the optimizer holds, before and after."""

    def begun():
        model, _ = make_problem()
        optimizer = oho.OHO(model.float().parameters(), oho.SGD(0.1, tune=("weight_decay",)))
        return optimizer, lr_scheduler.ExponentialLR(optimizer, 0.9)

    optimizer, schedule = begun()
    optimizer.step(lambda: optimizer.param_groups[0]["params"][0].sum())
    for _ in range(3):
        schedule.step()
    again, other = begun()
    again.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    for each in (schedule, other, schedule, other):
        each.step()
    assert again.hyper["lr"].item() == optimizer.hyper["lr"].item() == optimizer.param_groups[0]["lr"]


def test_a_group_shows_what_is_assigned_as_plain_numbers():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = oho.OHO([weight], oho.SGD(0.1, tune=()), members=3)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    assert optimizer.param_groups[0]["lr"] == [0.5, 0.5, 0.5]
    assert set(optimizer.flat_hyper()) >= {"lr/global/0", "lr/global/1", "lr/global/2"}


def test_a_map_of_sets_may_name_frozen_parameters():
    model, _ = make_problem()
    model[0].requires_grad_(requires_grad=False)
    sets = {name: name[0] for name, _ in model.named_parameters()}
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.1), sets=sets)
    assert optimizer.set_map.labels == ("2",)


def test_a_copy_goes_on_by_itself():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.Momentum(0.1, tune=("weight_decay",)))
    schedule = lr_scheduler.StepLR(optimizer, 2)
    steps(optimizer, model, batches)
    other_model, other = copy.deepcopy((model, optimizer))
    steps(optimizer, model, batches)
    kept = other.hyper["weight_decay"].item()
    assert optimizer.hyper["weight_decay"].item() != kept == other.param_groups[0]["weight_decay"]
    steps(other, other_model, batches)
    assert other.flat_hyper() == optimizer.flat_hyper()
    other.param_groups[0]["lr"] = 0.5
    assert (other.hyper["lr"].item(), optimizer.hyper["lr"].item()) == (0.5, 0.1)
    schedule.step()


def grouped(body, head, **options):
    return lambda m: oho.OHO(body_and_head(m, body=body, head=head), oho.SGD(0.1), **options)


MISTAKES = {
    "an option of another optimizer": (grouped({"betas": (0.9, 0.99)}, {}), "group 0 has 'betas'; allowed are 'params', "),
    "no parameters": (lambda m: oho.OHO([{"lr": 0.1}], oho.SGD(0.1)), "group 0 has no 'params'"),
    "groups and parameters": (lambda m: oho.OHO([{"params": []}, *m.parameters()], oho.SGD(0.1)), "one or the other"),
    "a value out of bounds": (grouped({}, {"lr": -1.0}), r"lr=0.1, -1: allowed is \["),
    "a text for a value": (grouped({}, {"lr": "high"}), "lr='high' of group 1: a number is expected"),
    "a text to tune": (grouped({"tune": "lr"}, {}), "a tuple of names is expected"),
    "tunes what there is not": (grouped({}, {"tune": ("beta1",)}), "tune of group 1: SGD has no beta1; it has lr"),
    "one name": (grouped({"name": "a"}, {"name": "a"}), "several groups are called a"),
    "a set across groups": (grouped({}, {}, sets=lambda name: "one"), "'group0' and 'group1'"),
    "groups of layers": (grouped({}, {}, sets=oho.Layerwise(2)), "not parameter groups"),
    "collapsed": (grouped({"tune": ()}, {}, influence="collapsed"), "need 'exact'"),
    "names repeated": (
        lambda m: oho.OHO([*m[0].named_parameters(), *m[2].named_parameters()], oho.SGD(0.1), sets="full"),
        "several parameters are called bias, weight",
    ),
    "sets with one name": (
        lambda m: oho.OHO(m.named_parameters(), oho.SGD(0.1), sets=lambda name: 2 if name[0] == "0" else "2"),
        "several sets would be shown as 2",
    ),
    "a set without a value": (
        lambda m: oho.OHO(m.named_parameters(), oho.SGD({"0.weight": 0.1}), sets="full"),
        "lr: no value is given for set '0.bias'",
    ),
    "a value without a set": (lambda m: oho.OHO(m.parameters(), oho.SGD({"global": 0.1, "x": 1})), "there is no set 'x'"),
    "no closure": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1)).step(), "nothing was given; give a closure"),
    "a loss": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1)).step(m[0].bias.sum()), "a Tensor was given"),
    "no micro-batch": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1)).step([]), "a list was given"),
    "a group too late": (
        lambda m: oho.OHO(m[0].parameters(), oho.SGD(0.1)).add_param_group({"params": m[2].parameters()}),
        "add_param_group: .* all groups at once",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake):
    make, expected = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=expected) as found:
        make(make_problem()[0])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("make", [
    lambda model: oho.OHO(model.parameters(), oho.SGD(0.1)),
    lambda model: oho.PublishedOHO(model.parameters(), lr=0.1, weight_decay=0.0, meta_lr=0.01),
], ids=["OHO", "PublishedOHO"])  # fmt: skip
def test_values_that_were_asked_for_once_are_as_they_are_now(make):
    model, batches = make_problem()
    optimizer = make(model)
    values = optimizer.hyper
    steps(optimizer, model, batches)
    assert torch.equal(values["lr"], optimizer.hyper["lr"])
    assert not torch.allclose(values["lr"], torch.tensor(0.1, dtype=torch.float64))
    expected = values["lr"] / 2
    values["lr"] *= 0.5
    assert torch.equal(optimizer.hyper["lr"], expected)
