"""The transition of our rules in place, against the same rules on dual numbers, in float64."""

import pytest
import torch

import oho
from oho.directions import Directions
from oho.influence import Influence, transition
from oho.linearised import linearised
from oho.sets import SetMap

MEMBERS, SIZES = 2, (5, 3, 4)
SETS = {"one set": (0, 0, 0), "two sets": (0, 1, 0)}
RULES = {
    "sgd": oho.SGD(0.1, tune=oho.SGD.names),
    "momentum": oho.Momentum(0.1, tune=oho.Momentum.names),
    "nesterov": oho.Momentum(0.1, nesterov=True, tune=oho.Momentum.names),
    "adam": oho.Adam(0.1, tune=oho.Adam.names),
    "adamw": oho.AdamW(0.1, tune=oho.AdamW.names),
    "adamw, two tuned": oho.AdamW(0.1),
    "sgd, clipped": oho.SGD(0.1, clip_value=1.0, clip_norm=0.5),
}
AT = {"lr": 0.03, "weight_decay": 0.2, "momentum": 0.8, "beta1": 0.7, "beta2": 0.95}


def given(rule, sets, *, exact=True, dead=False):
    """Returns the arguments of `transition` at some state; with `dead`, one unit has never had a gradient."""
    generator = torch.Generator().manual_seed(1)
    size, count = sum(SIZES), max(SETS[sets]) + 1

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tuned = {name: tuple(range(count)) for name in rule.tune}
    directions = Directions(tuned, exact, {"smoothing": 1})
    shape = (directions.rows, MEMBERS, size)
    slots = {name: normal(MEMBERS, size).abs() for name in rule.slot_names}
    slots |= {name: torch.full((MEMBERS, 1), 3.0, dtype=torch.float64) for name in rule.counter_names}
    share = 0.8 + 0.2 * torch.rand(MEMBERS, count, generator=generator, dtype=torch.float64)
    state = {
        "theta": normal(MEMBERS, size), "gradient": normal(MEMBERS, size), "slots": slots, "noise": None,
        "hyper": {name: AT[name] * share for name in rule.names},
        "influence": Influence(normal(*shape), {name: normal(*shape) for name in rule.slot_names}),
        "products": normal(*shape), "directions": directions,
    }  # fmt: skip
    if dead:
        for value in (state["gradient"], state["products"], *(slots[name] for name in rule.slot_names)):
            value[..., 4] = 0
    return (rule, SetMap(SETS[sets], SIZES, tuple(range(count)))), state


def both(monkeypatch, rule, sets, *, discount=0.9, **options):
    """Returns θ', slots and tangents of either form, by name."""
    found = []
    for step in (linearised, lambda rule: None):
        monkeypatch.setattr("oho.influence.linearised", step)
        first, state = given(rule, sets, **options)
        theta, slots = transition(*first, **state, discount=discount)
        tangents = state["influence"]
        found.append({"theta": theta, **slots, "dtheta": tangents.theta} | {f"d{n}": t for n, t in tangents.slots.items()})
    return found


def assert_equal(found):
    ours, twin = found
    assert ours.keys() == twin.keys()
    for name, value in twin.items():
        assert value.isfinite().all()
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_in_place_equal_dual_numbers(monkeypatch, rule, sets):
    assert_equal(both(monkeypatch, RULES[rule], sets))
    assert_equal(both(monkeypatch, RULES[rule], sets, discount=1.0, exact=False))


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_blocks_of_columns_are_put_together(monkeypatch, rule):
    monkeypatch.setattr("oho.influence.BLOCK_ELEMENTS", 1)
    monkeypatch.setattr("oho.influence.SMALLEST_WIDTH", 5)
    assert_equal(both(monkeypatch, RULES[rule], "two sets"))


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_a_unit_without_gradients_has_tangents_that_are_finite(monkeypatch, rule):
    assert_equal(both(monkeypatch, RULES[rule], "one set", dead=True))


def test_a_rule_that_changes_one_of_ours_is_not_taken_for_it():
    class Halved(oho.SGD):
        def __call__(self, theta, gradient, slots, hyper, noise=None):
            return super().__call__(theta, gradient / 2, slots, hyper, noise)

    class Renamed(oho.SGD):
        pass

    assert linearised(Halved(0.1)) is None
    assert linearised(oho.SGD(0.1, temperature=0.1)) is None
    assert linearised(Renamed(0.1)) is linearised(oho.SGD(0.1)) is not None
