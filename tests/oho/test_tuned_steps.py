"""Tuned steps in windows: the influence they carry, and the plain training between them."""

import math
from itertools import pairwise

import pytest
import torch
from small_trainings import RULES, SETS, loss_of, make_problem, online, relative_error, unrolled

import oho

AVERAGES = {"none": None, "recent": oho.Recent(0.3), "schedule-free": oho.ScheduleFree(0.8)}


def trained(rule, steps=20, **options):
    model, batches = make_problem()
    optimizer = oho.OHO(model.named_parameters(), rule, meta=oho.MetaAdam(0.05), **options)
    asked = []
    for step, batch in enumerate(batches[:steps], start=1):
        held = lambda step=step: asked.append(step) or loss_of(model, batches[-1])  # noqa: E731
        optimizer.step(lambda b=batch: loss_of(model, b), held)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach(), optimizer, asked


def test_the_first_steps_are_tuned_and_then_the_last_of_each_period():
    windows = oho.Windows(400, 50, 200)
    assert [windows.count(step) for step in (0, 1, 400, 550, 551, 600, 750, 800)] == [0, 1, 400, 400, 401, 450, 450, 500]
    counts = [windows.count(step) for step in range(2000)]
    assert {later - before for before, later in pairwise(counts)} == {0, 1}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("rule", RULES)
def test_the_influence_is_that_of_a_training_whose_other_steps_are_constants(rule, average):
    options = {"average": AVERAGES[average], "tuned_steps": oho.Windows(4, 3, 8)}  # of 20 steps 1 to 4, 10 to 12, 18 to 20
    options |= {} if average == "none" else {"present_share": 0.4}
    optimizer, _ = online(RULES[rule], SETS["layerwise"], **options)
    values, loss = unrolled(RULES[rule], optimizer.set_map, **options)
    tuned = RULES[rule].tune
    for name, exact in zip(tuned, torch.autograd.grad(loss, [values[n] for n in tuned]), strict=True):
        assert relative_error(optimizer.hypergradient[name], exact) < 1e-10, name


@pytest.mark.parametrize("rule", RULES)
def test_a_training_that_tunes_all_steps_is_the_usual_one(rule):
    plain, usual, _ = trained(RULES[rule], average=oho.Recent(0.3))
    same, windows, _ = trained(RULES[rule], average=oho.Recent(0.3), tuned_steps=oho.Windows(20, 1, 2))
    assert torch.equal(plain, same)
    assert all(torch.equal(usual.hypergradient[name], value) for name, value in windows.hypergradient.items())


@pytest.mark.parametrize("rule", RULES)
def test_the_steps_between_are_those_of_the_rule_alone(rule):
    """With a meta-rate of 0 the training is one that tunes nothing."""
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), RULES[rule], meta=oho.MetaSGD(0.0), tuned_steps=oho.Windows(2, 2, 5))
    twin, _ = make_problem()
    plain = oho.OHO(twin.parameters(), RULES[rule], meta=oho.MetaSGD(0.0))
    for batch in batches[:-1]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
        plain.step(lambda b=batch: loss_of(twin, b), lambda: loss_of(twin, batches[-1]))
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.allclose(mine, other, rtol=1e-13, atol=1e-15) for mine, other in pairs)


def test_validation_losses_are_asked_for_in_tuned_steps_alone():
    _, optimizer, asked = trained(oho.SGD(0.1), tuned_steps=oho.Windows(4, 2, 6))
    assert asked == [1, 2, 3, 4, 9, 10, 15, 16]
    assert [step for step in range(1, 21) if optimizer.is_meta_step(step)] == asked
    _, _, asked = trained(oho.SGD(0.1), tuned_steps=oho.Windows(4, 2, 6), update_every=2)
    assert asked == [2, 4, 10, 16]
    _, _, asked = trained(oho.SGD(0.1), tuned_steps=oho.Windows(4, 2, 6), update_every=2, first_updates=3)
    assert asked == [1, 2, 3, 4, 10, 16]


def test_a_saved_state_goes_on_bit_for_bit():
    whole, _, _ = trained(oho.AdamW(0.01), average=oho.Recent(0.3), tuned_steps=oho.Windows(3, 2, 5))
    model, batches = make_problem()
    options = {"meta": oho.MetaAdam(0.05), "average": oho.Recent(0.3), "tuned_steps": oho.Windows(3, 2, 5)}
    optimizer = oho.OHO(model.named_parameters(), oho.AdamW(0.01), **options)
    for step, batch in enumerate(batches[:20]):
        if step in (8, 14):  # one of them in the middle of a gap
            state = optimizer.state_dict()
            optimizer = oho.OHO(model.named_parameters(), oho.AdamW(0.01), **options)
            optimizer.load_state_dict(state)
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
    assert torch.equal(whole, torch.nn.utils.parameters_to_vector(model.parameters()).detach())


def test_an_audit_counts_the_steps_between_too():
    model, batches = make_problem()
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.5), tuned_steps=oho.Windows(4, 2, 6))
    pairs = [(lambda b=b: loss_of(model, b), lambda b=b: loss_of(model, batches[-1])) for b in batches]
    with pytest.raises(ValueError, match="the last of 14 steps, 14, has no meta-step; give 1 more"):
        oho.audit(model, optimizer, pairs[:14])
    error = max(float(value.max()) for value in oho.audit(model, optimizer, pairs[:16]).relative_error.values())
    assert 1e-3 < error < math.inf


class Chosen:
    """Tunes the first steps and no other, as a class of a user's own may."""

    def __init__(self, last):
        self.last = last

    def __repr__(self):
        return f"Chosen({self.last})"

    def count(self, step):
        return min(step, self.last)


@pytest.mark.parametrize(("every", "remedy"), [
    (2, "; allowed are steps that end with a meta-step, the last of which is step 4"),
    (5, ", nor any step before: change tuned_steps, update_every or first_updates"),
])  # fmt: skip
def test_an_audit_beyond_the_last_tuned_step_says_where_it_may_end(every, remedy):
    model, batches = make_problem()
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.5), tuned_steps=Chosen(4), update_every=every)
    pair = (lambda: loss_of(model, batches[0]), lambda: loss_of(model, batches[1]))
    with pytest.raises(ValueError, match="the last of 6 steps, 6, has no meta-step") as refused:
        oho.audit(model, optimizer, [pair] * 6)
    given = "audit: the last of 6 steps, 6, has no meta-step, and none of the next 1000000 has one (tuned_steps=Chosen(4))"
    assert str(refused.value) == given + remedy
    assert optimizer.steps == 0


@pytest.mark.parametrize("average", AVERAGES)
def test_an_audit_of_one_window_is_exact(average):
    """What the run carried in counts as right, the average's influence moved over the plain steps before."""
    model, batches = make_problem()
    optimizer = oho.OHO(
        model.named_parameters(), RULES["momentum"], meta=oho.MetaSGD(0.0), average=AVERAGES[average],
        tuned_steps=oho.Windows(4, 4, 8),
    )  # fmt: skip
    pairs = [(lambda b=b: loss_of(model, b), lambda: loss_of(model, batches[-1])) for b in batches]
    for pair in pairs[:8]:
        optimizer.step(*pair)
    found = oho.audit(model, optimizer, pairs[8:12])
    assert max(float(error.max()) for error in found.relative_error.values()) < 1e-10


class WrongTwice(torch.autograd.Function):
    """A sum of squares whose second derivative is 0: its backward pass keeps a detached value."""

    @staticmethod
    def forward(ctx, value):
        ctx.value = value.detach()
        return (value**2).sum()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2 * ctx.value


def test_the_first_product_is_checked_even_if_a_plain_step_comes_before():
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    state = oho.OHO([theta], oho.SGD(0.01)).state_dict() | {"steps": 4}
    optimizer = oho.OHO([theta], oho.SGD(0.01), tuned_steps=oho.Windows(4, 1, 2))
    optimizer.load_state_dict(state)
    loss = lambda: WrongTwice.apply(theta)  # noqa: E731
    optimizer.step(loss, loss)
    with pytest.raises(RuntimeError, match="second derivative of the training loss is wrong"):
        optimizer.step(loss, loss)


@pytest.mark.parametrize(("given", "message"), [
    ((400, 50, 200), "given tuple"), (4, "oho.Windows\\(\\) or None is expected; given int"), (oho.Windows, "given Win"),
])  # fmt: skip
def test_other_arguments_are_refused(given, message):
    model, _ = make_problem()
    with pytest.raises(TypeError, match=message):
        oho.OHO(model.parameters(), oho.SGD(0.1), tuned_steps=given)
    with pytest.raises(ValueError, match="first=0, length=50, period=400: must be whole numbers of steps"):
        oho.Windows(0)
