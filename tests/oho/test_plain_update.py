"""Plain steps in place: the numbers of the steps with tangents, bit for bit."""

import pytest
import torch
from small_trainings import RULES

import oho
from oho.plain_update import plain_update

LAYERS = ((37, 29), (29,), (29, 11), (11,))  # no multiples of what a processor takes at once
KINDS = {
    "alone": {},
    "average": {"average": oho.Recent(0.3)},
    "schedule-free": {"average": "schedule-free"},
    "two sets": {"sets": oho.Layerwise(2)},
    "members": {"members": 3, "average": oho.Recent(0.3)},
    "an unused tensor": {},
}


def trained(rule, kind):
    """Returns parameters, slots and average after two tuned steps and six plain ones."""
    members, generator = KINDS[kind].get("members"), torch.Generator().manual_seed(1)
    lead = () if members is None else (members,)
    tensors = [torch.randn(*lead, *shape, generator=generator).requires_grad_() for shape in LAYERS]
    named = [(f"layer{place // 2}.{place}", tensor) for place, tensor in enumerate(tensors)]
    optimizer = oho.OHO(named, RULES[rule], tuned_steps=oho.Windows(2, 1, 100), check=None, **KINDS[kind])
    used = tensors[:-1] if kind == "an unused tensor" else tensors

    def loss():
        per_member = sum((tensor**4).flatten(len(lead)).mean(-1) for tensor in used)
        return per_member if members else per_member.sum()

    for _ in range(8):
        optimizer.step(loss, loss)
    return [*tensors, *tensors_in(optimizer.state_dict())]


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in nested for tensor in tensors_in(item)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_plain_steps_equal_those_with_tangents(rule, kind, monkeypatch):
    found = trained(rule, kind)
    monkeypatch.setattr("oho.recursion.plain_update", lambda rule: None)
    twin = trained(rule, kind)
    assert len(found) == len(twin) > len(LAYERS)
    assert all(torch.equal(ours, other) for ours, other in zip(found, twin, strict=True))


def test_a_rule_that_changes_one_of_ours_or_draws_is_not_taken_for_it():
    class Halved(oho.SGD):
        def __call__(self, theta, gradient, slots, hyper, noise=None):
            return super().__call__(theta, gradient / 2, slots, hyper, noise)

    assert plain_update(Halved(0.1)) is None
    assert plain_update(oho.SGD(0.1, temperature=0.1)) is None
    assert plain_update(oho.SGD(0.1)) is not None
