"""OHO's methods with every update rule: exact, resumable, within bounds, and labelled."""

import math
import re
from itertools import product

import pytest
import torch
from helpers import METHOD_LINES, experiment, run_one, same, write_config
from trainings import advanced, first_spec, method_and_task, trained

import oho
from bench.experiment.expansion import load_experiment
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Kick
from bench.records import read_run, run_id

RULES = {
    "sgd": {"optimizer": {"name": "sgd"}},
    "momentum": {"optimizer": {"name": "momentum", "momentum": 0.8}, "tune": ["lr", "weight_decay", "momentum"]},
    "nesterov": {"optimizer": {"name": "momentum", "nesterov": True}, "tune": ["momentum"]},
    "adam": {"optimizer": {"name": "adam", "beta2": None}, "tune": ["lr", "weight_decay", "beta1", "beta2"]},
    "adamw": {"optimizer": {"name": "adamw"}, "tune": ["lr", "beta2"]},
}
METHODS = ["oho-global", "oho-layerwise", "oho-full", "oho-default"]
START = {"lr": 0.01, "weight_decay": 1e-4}


def with_rule(folder, method, rule, **options):
    rates = {} if method == "oho-default" else {"meta_rate": 1e-6}
    return first_spec(folder, method, **START, **rates, **RULES[rule], **options)


def combined(methods, *quick):
    """Every method with every rule; among the quick tests, those."""
    for pair in product(methods, RULES):
        yield pytest.param(*pair, marks=[] if pair in quick else [pytest.mark.slow])


EXACT = [
    ("oho-global", "sgd"), ("oho-global", "adamw"), ("oho-layerwise", "momentum"), ("oho-layerwise", "nesterov"),
    ("oho-full", "sgd"), ("oho-full", "adam"), ("oho-default", "nesterov"), ("oho-default", "adamw"),
]  # fmt: skip
RESUMED = [("oho-full", "momentum"), ("oho-full", "adamw"), ("oho-default", "sgd"), ("oho-default", "adam")]


@pytest.mark.parametrize(("method", "rule"), combined(METHODS, *EXACT))
def test_hypergradients_are_exact(method, rule, tmp_path):
    """In float64, against reverse-mode differentiation, from within a run whose hyperparameters move."""
    _, state = trained(with_rule(tmp_path, method, rule), 4, dtype=torch.float64)
    report = oho.audit(state.model, state.optimizer, [state.closures(step) for step in range(4, 12)])
    assert set(report.exact) == set(RULES[rule].get("tune", ["lr", "weight_decay"]))
    for name, exact in report.exact.items():
        assert float((report.found[name] - exact).norm() / exact.norm()) < 1e-8, name
    assert state.optimizer.shortened == 0
    moved = state.optimizer.hyper
    assert all(bool((moved[name] != getattr(state.optimizer.rule, name)).all()) for name in report.exact)


@pytest.mark.parametrize(("method", "rule"), combined(["oho-full", "oho-default"], *RESUMED))
def test_a_run_goes_on_bit_for_bit(method, rule, tmp_path):
    spec = with_rule(tmp_path, method, rule, compare_exact=True)
    method, state = trained(spec, 11)
    other, task = method_and_task(spec)
    restored = other.restored(task, 0, state.saved())
    assert restored.scalars() == state.scalars()
    state, restored = advanced(method, state, 23), advanced(other, restored, 23)
    assert same(state.model.state_dict(), restored.model.state_dict())
    assert state.hyper == restored.hyper
    assert state.scalars() == restored.scalars()


def test_a_published_run_goes_on_with_its_last_hypergradient(tmp_path):
    spec = first_spec(tmp_path, "oho-published")
    _, state = trained(spec, 5)
    method, task = method_and_task(spec)
    restored = method.restored(task, 0, state.saved())
    assert same(state.optimizer.hypergradient, restored.optimizer.hypergradient)


def test_open_values_are_those_that_a_fixed_training_draws(tmp_path):
    """Each hyperparameter from its own law, by the seed, whatever the method."""
    optimizer = {"name": "adam", "beta1": None, "beta2": None}
    online, fixed = (first_spec(tmp_path, method, optimizer=optimizer) for method in ("oho-default", "fixed"))
    for seed in (0, 1, 2):
        values = trained({**fixed, "seed": seed}, 0)[1].hyper
        assert trained({**online, "seed": seed}, 0)[1].hyper == values
        assert set(values) == {"lr", "weight_decay", "beta1", "beta2"}


def test_a_space_has_laws_of_the_rules_own(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "name: own\nhyperparameters: {lr: {low: 0.1, high: 0.2}, weight_decay: {low: 0, high: 1e-4}}\n"
        "optimizers: {adam: {lr: {low: 1e-4, high: 1e-3}}}\n"
    )
    for optimizer, low, high in (("sgd", 0.1, 0.2), ("adam", 1e-4, 1e-3)):
        overrides = ["space=own", f"methods.0.optimizer={optimizer}"]
        spec = experiment(tmp_path, "oho-default", overrides=overrides).specs[0]
        assert low <= trained(spec, 0)[1].hyper["lr"] <= high


def labels(folder, *overrides):
    methods = ["oho-global", "oho-full", "oho-default", "transplant"]
    return [spec["method"]["label"] for spec in experiment(folder, *methods, overrides=overrides).specs]


def test_labels_name_the_rule(tmp_path):
    assert labels(tmp_path) == ["Global OHO", "Full OHO", "Default OHO", "Transplant: Global OHO"]
    overrides = [
        "methods.0.optimizer=momentum", "methods.1.optimizer={name: adam, beta1: 0.8}", "methods.2.optimizer=adamw",
        "methods.3.over.optimizer=adam",
    ]  # fmt: skip
    expected = ["Global OHO, momentum", "Full OHO, Adam", "Default OHO, AdamW", "Transplant: Global OHO, Adam"]
    assert labels(tmp_path, *overrides) == expected


def test_labels_name_an_average_that_is_not_the_methods_own(tmp_path):
    expected = {"optimizer=sgd": "", "optimizer=adamw": ", AdamW", "average=500": ", averaged"}
    expected |= {"influence_limit=0.1": ", limit 0.1", "influence_limit=1": ""}
    expected |= {"curvature_factor={}": ", curvature factor none", "tuned_after={lr: 3}": ", tuned after lr 3"}
    for option, added in expected.items():
        (spec, *_) = experiment(tmp_path, "oho-averaged", overrides=[f"methods.0.{option}"]).specs
        assert spec["method"]["label"] == f"Averaged OHO{added}"


def test_a_factor_of_what_the_optimizer_lacks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sgd has no momentum; it has lr, weight_decay"):
        experiment(tmp_path, "oho-averaged", overrides=["methods.0.curvature_factor={momentum: 0.5}"])


def test_the_averaged_method_is_the_librarys(tmp_path):
    """Its average is what is evaluated, its products are from a part of each batch, its tuned steps become rarer."""
    state = trained(first_spec(tmp_path, "oho-averaged", lr=0.1, weight_decay=1e-5), 12)[1]
    expected = oho.averaged(state.model.parameters(), oho.SGD(0.1, 1e-5, clip_norm=1.0))
    assert repr(state.optimizer) == repr(expected).replace("0 steps", "12 steps")
    steps = ("update_every", "first_updates", "tuned_steps")
    for name in ("meta", "discount", "influence_limit", "average", "present_share", *steps):
        assert getattr(state.optimizer, name) == getattr(expected, name)
    assert state.options.curvature_part == 0.25
    assert state.exchange.weights is not None


LIMITS = [("sgd", None, 1.0, None), ("sgd", 1.0, 1.0, None), ("sgd", 0.1, 0.1, 0.1), ("adamw", None, 0.1, 0.1),
          ("adamw", 1.0, 1.0, 1.0), ("momentum", None, 0.1, 0.1)]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "given", "used", "kept"), LIMITS)
def test_the_averaged_method_has_the_librarys_limit_unless_it_is_given_one(optimizer, given, used, kept, tmp_path):
    """A spec has one that is not 1, so that runs over AdamW are others than those of the limit that it had before."""
    own = {"lr": 0.1, "weight_decay": 1e-5, "optimizer": optimizer} | ({} if given is None else {"influence_limit": given})
    overrides = [f"methods.0.{name}={value}" for name, value in own.items()]
    (spec,) = experiment(tmp_path, "oho-averaged", overrides=overrides).specs
    assert spec["method"].get("influence_limit") == kept
    assert trained(spec, 1)[1].optimizer.influence_limit == used


def test_the_averaged_method_may_leave_gradients_as_they_are(tmp_path):
    state = trained(first_spec(tmp_path, "oho-averaged", lr=0.1, weight_decay=1e-5, clip_norm=None), 1)[1]
    assert state.optimizer.rule.clip_norm == math.inf


def test_meta_rates_by_hyperparameter(tmp_path):
    """A rate of 0 holds its hyperparameter still; what has no rate of its own has the common one."""
    options = {**RULES["momentum"], **START, "meta_rate": 1e-4, "weight_decay_rate_scale": 0.0}
    for rates, still in (({"momentum": 0}, {"momentum", "weight_decay"}), ({"lr": 0, "weight_decay": 1e-7}, {"lr"})):
        state = trained(first_spec(tmp_path, "oho-global", **options, meta_rates=rates), 10)[1]
        unmoved = {
            name for name, value in state.hyper.items() if value == [pytest.approx({**START, "momentum": 0.8}[name])]
        }
        assert unmoved == still


@pytest.mark.parametrize(("method", "high"), [("oho-global", 0.999), ("oho-default", 0.999)])
def test_kicks_stay_within_bounds(method, high, tmp_path):
    _, state = trained(with_rule(tmp_path, method, "momentum"), 3)
    for kick, expected in (
        (Kick("momentum", factor=3.0), high),
        (Kick("momentum", value=0.5), 0.5),
        (Kick("momentum", 0.9995), high),
    ):
        state.kick(kick)
        assert state.hyper["momentum"] == [pytest.approx(expected)]
    state.kick(Kick("lr", factor=1e300))
    assert state.hyper["lr"] == [pytest.approx(torch.finfo(torch.float32).max)]
    state.kick(Kick("lr", value=1e-12))
    assert state.hyper["lr"] == [pytest.approx(1e-12 if method == "oho-global" else 1e-8)]  # where its logarithm is tuned
    state.kick(Kick("weight_decay", value=0.0))
    assert state.hyper["weight_decay"] == [pytest.approx(0.0 if method == "oho-global" else 1e-5)]


def test_a_shock_may_set_what_the_rule_has(tmp_path):
    path = write_config(tmp_path, "oho-full")
    line = METHOD_LINES["oho-full"]
    shock = "shocks:\n  - events: [{epoch: 3, set: {beta1: 0.5}}]\n"
    path.write_text(path.read_text().replace(line, line[:-1] + ", optimizer: adam, lr: 0.001}") + shock)
    spec = load_experiment(path).specs[1]
    run_one(spec, tmp_path)
    before, after = [r["hyper"]["beta1"] for r in read_run(tmp_path / run_id(spec)).evaluations if r["step"] == 30]
    assert (before, after) == ([pytest.approx(0.9)] * len(before), [pytest.approx(0.5)] * len(before))
    path.write_text(path.read_text().replace("beta1", "momentum"))
    with pytest.raises(
        ConfigError, match=r":13:\d+: method 'Full OHO, Adam' has no hyperparameter 'momentum'; it has: lr, w"
    ):
        load_experiment(path)


MISTAKES = {
    "of no rule": ("{name: oho-default, tune: [beta1]}", r":11:25: methods.0.tune: sgd has no beta1; it has lr, weight"),
    "of another rule": (
        "{name: oho-full, optimizer: adam, tune: [lr, momentum]}",
        r":11:39: methods.0.tune: adam has no momentum; it has lr, weight_decay, beta1, beta2",
    ),
    "twice": ("{name: oho-global, tune: [lr, lr]}", r":11:24: methods.0.tune: each name once"),
    "nothing": ("{name: oho-global, tune: []}", r":11:24: methods.0.tune: one or more are expected"),
    "out of bounds": (
        "{name: oho-global, optimizer: {name: momentum, momentum: 0.9995}, tune: [momentum]}",
        r":11:71: methods.0.tune: momentum=0.9995 is out of bounds; allowed is \[0, 0.999\] where it is tuned",
    ),
    "a rate of what is not tuned": (
        "{name: oho-global, optimizer: adam, meta_rates: {beta1: 1e-3}}",
        r":11:41: methods.0.meta_rates: beta1: not tuned; tuned are lr, weight_decay",
    ),
    "a negative rate": (
        "{name: oho-global, meta_rates: {lr: -1}}", r":11:24: methods.0.meta_rates: lr: must be 0 or more",
    ),
    "the published code has SGD alone": (
        "{name: oho-published, optimizer: adam}", r":11:27: unknown key 'methods.0.optimizer'; allowed: .*variant",
    ),
    "the defaults have no meta-rate": (
        "{name: oho-default, meta_rate: 1}", r":11:25: unknown key 'methods.0.meta_rate'; allowed: .*optimizer.*tune",
    ),
    "a share without an average": (
        "{name: oho-default, present_share: 0.5}", r":11:25: methods.0.present_share: it needs an average, such as",
    ),
    "the averaged method without an average": (
        "{name: oho-averaged, average: null}", r":11:\d+: methods.0.present_share: it needs an average",
    ),
    "an unknown option of a rule": (
        "{name: oho-global, optimizer: {name: adam, nesterov: true}}",
        r":11:48: unknown key 'methods.0.optimizer.nesterov'; allowed: beta1, beta2, name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(mistake, tmp_path):
    line, expected = MISTAKES[mistake]
    path = write_config(tmp_path, "fixed")
    path.write_text(path.read_text().replace("{name: fixed}", line))
    with pytest.raises(ConfigError) as error:
        load_experiment(path)
    assert "\n" not in str(error.value)
    assert re.search(expected, str(error.value)), str(error.value)


def test_training_batches_as_the_source_of_hypergradients(tmp_path):
    """The loss that is followed falls on the batch that was just trained on."""
    _, state = trained(first_spec(tmp_path, "oho-global", source="training"), 1)
    held, train = state.closures(3)[1](), state.closures(3)[0]()
    assert held.item() == train.item()
    validated = trained(first_spec(tmp_path, "oho-global"), 60)[1]
    assert trained(first_spec(tmp_path, "oho-global", source="training"), 60)[1].hyper != validated.hyper


def test_a_validation_batch_size_of_its_own(tmp_path):
    _, state = trained(first_spec(tmp_path, "oho-default", validation_batch_size=17), 1)
    assert state.validation_batches.at(0).inputs.shape == (17, 64)
