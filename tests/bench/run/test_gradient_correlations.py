"""What is measured beside the losses: correlations of gradients, errors of hypergradients; and transplanted schedules."""

import math

import pytest
import torch
from helpers import experiment, run_one

import oho
from bench.experiment.spec import method_of, task_of
from bench.protocol.ledger import Ledger
from bench.records import Status, read_run, run_id
from bench.run.gradient_correlations import gradient_correlations

CPU = torch.device("cpu")


def first_spec(folder, method, **options):
    spec = experiment(folder, method).specs[0]
    return {**spec, "method": {**spec["method"], **options}}


def trained(spec, steps):
    task, _ = task_of(spec, CPU, None)
    method = method_of(spec)
    state = method.init(task, spec["seed"])
    while state.step < steps:
        method.advance(state, steps=steps - state.step, progress=0.0, ledger=Ledger())
    return method, state


def test_gradient_correlations_are_the_cosines_of_pairs(tmp_path):
    task, _ = task_of(first_spec(tmp_path, "fixed"), CPU, None)
    model = task.model(0)
    found = gradient_correlations(task, model, seed=0, step=7, count=3)
    from bench.protocol.task import Batches

    batches, gradients = Batches(task.train, task.batch_size, 0, "gradient correlations"), []
    for index in (21, 22, 23):
        model.zero_grad()
        task.training_loss(model, batches.at(index)).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    pairs = [torch.cosine_similarity(gradients[a], gradients[b], dim=0) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["gradient_correlation_mean"] == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)
    expected = float(torch.stack(pairs).std(correction=0))
    assert found["gradient_correlation_deviation"] == pytest.approx(expected, rel=1e-3)


def test_they_are_recorded_and_change_nothing(tmp_path):
    spec = first_spec(tmp_path, "oho-global")
    plain = run_one(spec, tmp_path)
    watched = run_one({**spec, "gradient_batches": 4}, tmp_path)
    assert -1 <= watched.final["scalars"]["gradient_correlation_mean"] <= 1
    assert watched.final["test_loss"] == plain.final["test_loss"]


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
    task, _ = task_of(spec, CPU, None)
    method = method_of(spec)
    state = method.init(task, 0)
    report = oho.audit(state.model, state.optimizer, [state.closures(step) for step in range(12)])
    _, watched = trained(spec, 12)
    for name, exact in report.exact.items():
        last = torch.linalg.vector_norm(report.found[name] - exact) / torch.linalg.vector_norm(exact)
        assert watched.twin._errors[name][-1] == pytest.approx(float(last), rel=1e-3)


def test_a_run_whose_hyperparameters_are_lost_is_followed_no_more(tmp_path):
    _, state = trained(first_spec(tmp_path, "oho-published", compare_exact=True), 5)
    state.optimizer.set_hyper("lr", math.nan)
    state.twin.follow()
    state.twin.compare(*state.closures(5, state.twin.model))
    assert state.twin.scalars() == {}


def test_training_batches_as_the_source_of_hypergradients(tmp_path):
    """The loss that is followed falls on the batch that was just trained on."""
    _, state = trained(first_spec(tmp_path, "oho-global", source="training"), 1)
    held, train = state.closures(3)[1](), state.closures(3)[0]()
    assert float(held) == float(train)
    validated = trained(first_spec(tmp_path, "oho-global"), 60)[1]
    assert trained(first_spec(tmp_path, "oho-global", source="training"), 60)[1].hyper != validated.hyper


def test_a_validation_batch_size_of_its_own(tmp_path):
    _, state = trained(first_spec(tmp_path, "oho-default", validation_batch_size=17), 1)
    assert state.validation_batches.at(0).inputs.shape == (17, 64)


def donor_values(spec, steps):
    """What the donor's optimizer has before each step."""
    over = {**spec, "method": {**spec["method"]["over"]}}
    task, _ = task_of(spec, CPU, None)
    method = method_of(over)
    state, found = method.init(task, 1000), []
    for _ in range(steps):
        found.append(state.optimizer.hyper["lr"].tolist())
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
    return found


@pytest.mark.parametrize("order", ["kept", "shuffled", "mean"])
def test_a_transplant_follows_the_donors_schedule(order, tmp_path):
    spec = first_spec(tmp_path, "transplant", order=order)
    donor = donor_values(spec, 40)
    task, _ = task_of(spec, CPU, None)
    method = method_of(spec)
    state, seen = method.init(task, 0), []
    for _ in range(44):
        method.advance(state, steps=1, progress=0.0, ledger=Ledger())
        seen.append(state.hyper["lr"])
    expected = {"kept": donor, "shuffled": sorted(donor), "mean": [[pytest.approx(sum(d[0] for d in donor) / 40)]] * 40}
    found = {"kept": seen[:40], "shuffled": sorted(seen[:40]), "mean": seen[:40]}
    assert found[order] == expected[order]
    assert seen[40:] == [seen[39]] * 4
    assert order != "shuffled" or seen[:40] != donor


def test_a_transplant_is_plain_sgd(tmp_path):
    spec = first_spec(tmp_path, "transplant", order="mean")
    found = run_one(spec, tmp_path)
    values = {name: value[0] for name, value in found.final["hyper"].items()}
    fixed = first_spec(tmp_path, "fixed", **values)
    assert run_one(fixed, tmp_path).final["validation_loss"] == pytest.approx(found.final["validation_loss"], rel=1e-4)
    assert found.status is Status.BUDGET_REACHED
    assert read_run(tmp_path / run_id(spec)).outcome.accounts["hypergradient"] < 0.1 * found.wall_seconds
