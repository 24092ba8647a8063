"""Transplanted schedules: the donor's values, in its update rule."""

import pytest
from helpers import StoppedAfter, experiment, records_together, run_one, same
from trainings import advanced, first_spec, method_and_task, trained

from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Interrupted
from bench.protocol.ledger import Ledger
from bench.records import Status, read_run, run_id


def donor_values(spec, steps):
    """What the donor's optimizer has before each step."""
    over = {**spec, "method": {**spec["method"]["over"]}}
    method, task = method_and_task(over)
    state, found = method.init(task, 1000), []
    for _ in range(steps):
        found.append(state.optimizer.hyper["lr"].tolist())
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
    return found


@pytest.mark.parametrize("order", ["kept", "shuffled", "mean"])
def test_a_transplant_follows_the_donors_schedule(order, tmp_path):
    spec = first_spec(tmp_path, "transplant", order=order)
    donor = donor_values(spec, 40)
    method, task = method_and_task(spec)
    state, seen = method.init(task, 0), []
    for _ in range(44):
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
        seen.append(state.hyper["lr"])
    expected = {"kept": donor, "shuffled": sorted(donor), "mean": [[pytest.approx(sum(d[0] for d in donor) / 40)]] * 40}
    found = {"kept": seen[:40], "shuffled": sorted(seen[:40]), "mean": seen[:40]}
    assert found[order] == expected[order]
    assert seen[40:] == [seen[39]] * 4
    assert order != "shuffled" or seen[:40] != donor


OPTIMIZERS = [
    {"name": "sgd"},
    {"name": "momentum", "momentum": 0.8, "nesterov": True},
    {"name": "adam"},
    {"name": "adamw", "beta1": 0.8},
]


def with_optimizer(folder, optimizer, **options):
    spec = first_spec(folder, "transplant", **options)
    over = {**spec["method"]["over"], "optimizer": optimizer, "meta_rate": 1e-5}
    over["tune"] = ["lr", "weight_decay", *(name for name in optimizer if name in ("momentum", "beta1"))]
    return {**spec, "method": {**spec["method"], "over": over}}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer["name"])
def test_a_transplant_along_one_value_is_plain_training_with_the_donors_rule(optimizer, tmp_path):
    spec = with_optimizer(tmp_path, optimizer, order="mean")
    found = run_one(spec, tmp_path)
    values = {name: value[0] for name, value in found.final["hyper"].items()}
    assert set(values) == {
        "lr",
        "weight_decay",
        *{"momentum": ["momentum"], "sgd": []}.get(optimizer["name"], ["beta1", "beta2"]),
    }
    outer = {name: values.pop(name) for name in ("lr", "weight_decay")}
    fixed = first_spec(tmp_path, "fixed", **outer, optimizer={**optimizer, **values})
    assert run_one(fixed, tmp_path).final["validation_loss"] == pytest.approx(found.final["validation_loss"], rel=1e-4)
    assert found.status is Status.BUDGET_REACHED
    assert read_run(tmp_path / run_id(spec)).outcome.accounts["hypergradient"] < 0.1 * found.wall_seconds


def test_all_tuned_values_are_transplanted(tmp_path):
    spec = with_optimizer(tmp_path, {"name": "momentum", "momentum": 0.8})
    seen = [record["hyper"]["momentum"][0] for record in run_records(spec, tmp_path)]
    assert len(set(seen)) > 3


def run_records(spec, folder):
    run_one(spec, folder)
    return read_run(folder / run_id(spec)).evaluations


@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:3], ids=lambda optimizer: optimizer["name"])
def test_a_transplant_goes_on_with_the_optimizers_memory(optimizer, tmp_path):
    spec = with_optimizer(tmp_path, optimizer)
    method, task = method_and_task(spec)
    state = advanced(method, method.init(task, 0), 13)
    other, _ = method_and_task(spec)
    restored = advanced(other, other.restored(task, 0, state.saved()), 30)
    state = advanced(method, state, 30)
    assert same(state.model.state_dict(), restored.model.state_dict())


def test_a_donor_that_diverges_gives_its_values_up_to_there(tmp_path):
    spec = first_spec(tmp_path, "transplant")
    spec["method"]["over"] = first_spec(tmp_path, "oho-published", lr=0.5, meta_rate=1e30)["method"]
    _, state = trained(spec, 20)
    values = state.schedule["lr"]
    assert len(values) < 40
    assert values.isfinite().all()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_a_run_that_continues_does_not_train_its_donor_again(together, tmp_path, monkeypatch):
    overrides = ["methods=[{name: transplant, epochs: 2, over: {name: oho-global, meta_rate: 1e-3}}]"]
    specs = experiment(tmp_path, "fixed", overrides=overrides, seeds=[0, 1]).specs[: 1 + together]

    def make(folder, **options):
        if together:
            return records_together(specs, folder, **options)[0]
        return [run_one(specs[0], folder, **options)]

    whole = make(tmp_path / "whole")
    with pytest.raises(Interrupted):
        make(tmp_path / "cut", stopper=StoppedAfter(4))
    assert all(0 < read_run(tmp_path / "cut" / run_id(spec)).outcome.steps < 60 for spec in specs)
    for trains in ("bench.online.transplant.Transplant._donate", "bench.online.batched_transplants._found_by"):
        monkeypatch.setattr(trains, lambda *given: pytest.fail("a donor is trained again"))
    assert [outcome.final["test_loss"] for outcome in make(tmp_path / "cut")] == [each.final["test_loss"] for each in whole]


def test_a_donor_that_noise_moves_is_refused(tmp_path):
    donor = "{name: oho-global, temperature: 1e-6}"
    with pytest.raises(ConfigError, match="a training with a temperature is moved by noise"):
        experiment(tmp_path, "fixed", overrides=[f"methods=[{{name: transplant, epochs: 2, over: {donor}}}]"])
