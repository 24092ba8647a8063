"""Correlations of gradients, measured beside the losses."""

import pytest
import torch
from helpers import run_one
from trainings import first_spec, method_and_task

from bench.protocol import Batches
from bench.run.gradient_correlations import gradient_correlations


def test_gradient_correlations_are_the_cosines_of_pairs(tmp_path):
    _, task = method_and_task(first_spec(tmp_path, "fixed"))
    model = task.model(0)
    found = gradient_correlations(task, model, seed=0, step=7, count=3)
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
