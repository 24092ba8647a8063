"""The exact influence beside a run: errors of the run's hypergradients, whatever its rule."""

import math

import pytest
import torch
from helpers import experiment, run_one, same
from trainings import first_spec, method_and_task, trained

import oho
from bench.experiment.yaml_file import ConfigError
from bench.online.exact_twin import bias_and_noise, compared


@pytest.mark.parametrize("method", ["oho-global", "oho-full"])
def test_an_exact_run_has_no_error_but_rounding(method, tmp_path):
    spec = first_spec(tmp_path, method, compare_exact=True, lr=0.3)
    plain = run_one({**spec, "method": {**spec["method"], "compare_exact": False}}, tmp_path)
    outcome = run_one(spec, tmp_path)
    assert outcome.final["scalars"]["hypergradient_error_lr"] < 1e-4
    assert outcome.final["scalars"]["hypergradient_wrong_sign_lr"] == 0
    assert outcome.final["test_loss"] == plain.final["test_loss"]
    assert outcome.accounts["evaluation"] > 0


@pytest.mark.parametrize("variant", ["global", "full"])
def test_the_errors_of_the_published_recursion_are_those_of_an_audit_of_the_whole_run(variant, tmp_path):
    spec = first_spec(tmp_path, "oho-published", compare_exact=True, lr=0.3, variant=variant)
    method, task = method_and_task(spec)
    state = method.init(task, 0)
    report = oho.audit(state.model, state.optimizer, [state.closures(step) for step in range(12)])
    _, watched = trained(spec, 12)
    for name, exact in report.exact.items():
        last = torch.linalg.vector_norm(report.found[name] - exact) / torch.linalg.vector_norm(exact)
        assert watched.twin.errors(name)[-1] == pytest.approx(float(last), rel=1e-3)


def test_a_run_whose_hyperparameters_are_lost_is_followed_no_more(tmp_path):
    _, state = trained(first_spec(tmp_path, "oho-published", compare_exact=True), 5)
    state.optimizer.set_hyper("lr", 1e30)
    state.optimizer.step(*state.closures(5))
    state.optimizer.step(*state.closures(5))
    assert math.isnan(float(state.optimizer.hyper["lr"]))
    state.twin.follow()
    state.twin.compare(*state.closures(5, state.twin.model))
    assert state.twin.scalars() == {}


RULES = {
    "sgd": {"temperature": 1e-6},
    "momentum": {"optimizer": {"name": "momentum", "nesterov": True}, "tune": ["momentum", "lr", "weight_decay"]},
    "adam": {"optimizer": {"name": "adam"}, "tune": ["lr", "weight_decay", "beta1", "beta2"]},
    "adamw": {"optimizer": {"name": "adamw", "beta1": 0.5}, "tune": ["beta1", "weight_decay"]},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["oho-global", "oho-full", "oho-layerwise"])
def test_it_follows_every_rule_with_slots_and_noise(method, rule, tmp_path):
    """The run is exact, so that all the twin can find is rounding; its own influence is made apart from the run's."""
    options = {"lr": 0.01, "weight_decay": 1e-4, "meta_rate": 1e-6, "compare_exact": True, **RULES[rule]}
    spec = first_spec(tmp_path, method, **options)
    _, state = trained(spec, 10, dtype=torch.float64)
    names = RULES[rule].get("tune", ["lr", "weight_decay"])
    errors = {name: error for name, error in state.scalars().items() if name.startswith("hypergradient_error_")}
    assert set(errors) == {f"hypergradient_error_{name}" for name in names}
    assert max(errors.values()) < 1e-10
    assert all(error < 1e-8 for name in names for error in state.twin.errors(name))
    assert same(state.twin.optimizer.state_dict()["slots"], state.optimizer.state_dict()["slots"])


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_it_finds_the_error_of_a_discounted_run(rule, tmp_path):
    """As an audit of the whole run does, whose twin is reverse-mode."""
    common = {"lr": 0.01, "weight_decay": 1e-4, "meta_rate": 0.0, **RULES[rule]}
    found = trained(first_spec(tmp_path, "oho-full", **common, discount=0.5), 12, dtype=torch.float64)[1]
    exact = trained(first_spec(tmp_path, "oho-full", **common), 12, dtype=torch.float64)[1]
    spec = first_spec(tmp_path, "oho-full", **common, discount=0.5, compare_exact=True)
    watched = trained(spec, 12, dtype=torch.float64)[1]
    for name, right in exact.optimizer.hypergradient.items():
        error = float((found.optimizer.hypergradient[name] - right).norm() / right.norm())
        assert watched.twin.errors(name)[-1] == pytest.approx(error, rel=1e-6)
        assert error > 0.01


def test_only_steps_with_a_meta_step_are_compared(tmp_path):
    _, state = trained(first_spec(tmp_path, "oho-global", compare_exact=True, update_every=4), 10)
    assert len(state.twin.errors("lr")) == 2
    assert state.scalars()["hypergradient_error_lr"] < 1e-4


BOUNDS = {"lr": 0.3, "meta_rate": 1e-4, "discount": 0.9, "influence_limit": 0.02}


def test_a_bounded_twin_has_the_limit_and_the_discount_of_the_run(tmp_path):
    """So that a run that follows each step, with products from all of the batch, is off by rounding alone."""
    spec = first_spec(tmp_path, "oho-global", **BOUNDS, compare_exact=True)
    _, free = trained(spec, 10, dtype=torch.float64)
    _, bounded = trained(first_spec(tmp_path, "oho-global", **BOUNDS, compare_exact=True, bounded_twin=True), 10,
                         dtype=torch.float64)  # fmt: skip
    assert free.optimizer.shortened > 0
    assert free.scalars()["hypergradient_error_lr"] > 0.01
    assert bounded.scalars()["hypergradient_error_lr"] < 1e-10
    assert abs(bounded.scalars()["hypergradient_bias_lr"]) < 1e-10


def test_a_bounded_twin_has_the_factor_of_the_curvature_and_compares_no_step_in_which_a_value_is_held(tmp_path):
    options = {
        "lr": 0.3, "weight_decay": 1e-3, "windows": None, "update_every": 1, "curvature_fraction": None,
        "compare_exact": True, "tuned_after": {"weight_decay": 4},
    }  # fmt: skip
    bounded = first_spec(tmp_path, "oho-averaged", **options, bounded_twin=True)
    _, state = trained(bounded, 10, dtype=torch.float64)
    assert [len(state.twin.errors(name)) for name in ("lr", "weight_decay")] == [10, 6]
    assert max(state.twin.errors("weight_decay")) < 1e-10
    _, free = trained(first_spec(tmp_path, "oho-averaged", **options), 10, dtype=torch.float64)
    assert max(free.twin.errors("weight_decay")) > 0.01


def test_products_of_a_part_have_noise_and_hardly_a_bias(tmp_path):
    """The parts of a batch are drawn anew at each step: what is wrong with one cancels out over many."""
    options = {"lr": 0.05, "meta_rate": 0.0, "curvature_fraction": 0.5, "compare_exact": True}
    scalars = trained(first_spec(tmp_path, "oho-global", **options), 100, dtype=torch.float64)[1].scalars()
    assert 0 < abs(scalars["hypergradient_bias_lr"]) < scalars["hypergradient_noise_lr"] < 0.5


@pytest.mark.parametrize("slope", [0.8, 1.0, -0.5])
def test_bias_and_noise_are_those_that_hypergradients_were_given(slope):
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(4000, 3, dtype=torch.float64, generator=generator)
    found = slope * exact + 0.1 * torch.randn(exact.shape, dtype=torch.float64, generator=generator)
    bias, noise = bias_and_noise(compared(found, exact, len(exact)))
    assert bias == pytest.approx(slope - 1, abs=4 * 0.1 / exact.numel() ** 0.5)
    assert noise == pytest.approx(0.1, rel=4 / (2 * exact.numel()) ** 0.5)


def test_without_an_exact_hypergradient_there_is_no_bias():
    assert all(map(math.isnan, bias_and_noise(compared(torch.ones(2), torch.zeros(2)))))


def test_a_bounded_twin_needs_a_twin(tmp_path):
    with pytest.raises(ConfigError, match="it needs an exact twin: compare_exact: true"):
        experiment(tmp_path, "oho-default", overrides=["methods.0.bounded_twin=true"])
