"""MetaOptimize in float64, tensor by tensor as its authors' code has it, and against autograd."""

import math

import pytest
import torch
from quadratics import SIZE, Point, gradient_at, loss_at, run

from baselines.meta_optimize import MetaOptimize


@pytest.fixture
def start():
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def stepper_of(model, **values):
    return MetaOptimize(model, **{"lr": 0.05, "weight_decay": 0.1, "meta_rate": 0.02, "discount": 0.99, **values})


def test_meta_optimize_is_the_published_recursion(start):
    model = Point(start)
    stepper = stepper_of(model)
    points, _ = run(stepper, model, steps=40)
    x, log_lr, mean, square, trace, meta = start, math.log(0.05), 0.0, 0.0, torch.zeros_like(start), 0.0
    rates = set()
    for step in range(40):
        lr, gradient = math.exp(log_lr), gradient_at(x, step) - 0.03 * x  # without the penalty of the helper
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        root = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        x = x - lr * 0.1 * x - lr * (mean / (1 - 0.9 ** (step + 1))) / root
        torch.testing.assert_close(points[step], x, rtol=1e-9, atol=1e-9)
        found = float(trace @ gradient)
        trace = 0.99 * (1 - lr * 0.1) * trace + lr * gradient / root
        meta = 0.99 * meta + 0.01 * found
        log_lr += 0.02 * math.copysign(1.0, 0.9 * meta + 0.1 * found) * (found != 0)
        rates.add(log_lr)
    assert stepper.hyper()["lr"] == pytest.approx(math.exp(log_lr), rel=1e-9)
    assert len(rates) > 10


def test_without_meta_rate_it_is_adamw(start):
    model, other = Point(start), Point(start)
    points, _ = run(stepper_of(model, meta_rate=0.0), model, steps=20)
    optimizer = torch.optim.AdamW(other.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(20):
        optimizer.zero_grad()
        loss_at(other.x, step).backward()
        optimizer.step()
        torch.testing.assert_close(points[step], other.x.detach(), rtol=1e-7, atol=1e-7)


def test_a_first_learning_rate_that_is_too_small_grows(start):
    model = Point(start + 10)
    stepper = stepper_of(model, lr=1e-4)
    for _ in range(50):
        stepper.step(lambda: loss_at(model.x, 0), None)
    assert stepper.hyper()["lr"] == pytest.approx(1e-4 * math.exp(49 * 0.02), rel=1e-9)
