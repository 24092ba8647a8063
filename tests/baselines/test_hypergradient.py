"""One-step hypergradients in float64: against autograd, and against both recursions written with plain tensors."""

import pytest
import torch
from quadratics import DECAY, SIZE, Point, close, gradient_at, loss_at, penalised, run

from baselines.hypergradient import HeavyBallHypergradient, HypergradientDescent, feedback


@pytest.fixture
def start():
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_hypergradient_descent_is_the_published_recursion(start):
    model = Point(start)
    stepper = HypergradientDescent(model, lr=0.05, weight_decay=DECAY, meta_rate=1e-3)
    points, losses = run(stepper, model, steps=20)
    x, lr, previous = start, 0.05, torch.zeros(SIZE, dtype=torch.float64)
    for step in range(20):
        close(losses[step], loss_at(x, step))
        gradient = gradient_at(x, step)
        lr = lr + 1e-3 * float(gradient @ previous)
        x, previous = x - lr * gradient, gradient
        close(points[step], x)
    assert stepper.hyper()["lr"] == pytest.approx(lr, rel=1e-12)
    assert lr != 0.05


def test_hypergradient_descent_follows_the_derivative_by_the_last_learning_rate(start):
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    derivative = torch.autograd.grad(penalised(start - lr * gradient_at(start, 0), 1), lr)[0]
    model = Point(start)
    stepper = HypergradientDescent(model, lr=0.05, weight_decay=DECAY, meta_rate=1e-3)
    run(stepper, model, steps=2)
    assert stepper.hyper()["lr"] == pytest.approx(0.05 - 1e-3 * float(derivative), rel=1e-12)


def test_hypergradient_descent_never_goes_uphill(start):
    """Steps so long that gradients alternate bring the learning rate down to 0, not below."""
    model = Point(start)
    stepper = HypergradientDescent(model, lr=1.0, weight_decay=DECAY, meta_rate=1.0)
    points, rates = [], []
    for _ in range(30):
        stepper.step(lambda: loss_at(model.x, 0), None)
        points.append(model.x.detach().clone())
        rates.append(stepper.hyper()["lr"])
    stopped = rates.index(0.0)
    assert min(rates) == 0.0
    assert torch.equal(points[stopped], points[stopped - 1])


def test_without_meta_rate_hypergradient_descent_is_sgd(start):
    model, other = Point(start), Point(start)
    points, _ = run(HypergradientDescent(model, lr=0.1, weight_decay=DECAY, meta_rate=0.0), model, steps=10)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=DECAY)
    for step in range(10):
        optimizer.zero_grad()
        loss_at(other.x, step).backward()
        optimizer.step()
        close(points[step], other.x.detach())


@pytest.mark.parametrize("shape", [(), (SIZE,)])
def test_feedback_is_the_normalised_derivative_of_the_trial_loss(start, shape):
    gradient, difference = gradient_at(start, 0), 0.1 * gradient_at(start, 7)
    scale = torch.full(shape, 0.2, dtype=torch.float64, requires_grad=True)
    momentum = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    trial = start - scale * gradient + momentum * difference
    by_scale, by_momentum = torch.autograd.grad(penalised(trial, 0), [scale, momentum])
    trial_gradient = gradient_at(trial.detach(), 0)
    found = feedback(gradient=gradient, trial_gradient=trial_gradient, difference=difference)
    square = gradient @ gradient
    close(found.scale if shape else found.scale.sum(), by_scale / square)
    close(found.momentum, by_momentum / square)


@pytest.mark.parametrize("scaling", ["scalar", "diagonal"])
def test_hdm_is_its_recursion(start, scaling):
    model = Point(start)
    stepper = HeavyBallHypergradient(model, lr=0.8, weight_decay=DECAY, meta_rate=0.2, scaling=scaling)
    points, losses = run(stepper, model, steps=25)
    x, before, momentum = start, start, 0.95
    scale = torch.full((SIZE,) if scaling == "diagonal" else (1,), 0.8, dtype=torch.float64)
    scale_squares, momentum_squares, null_steps = torch.zeros_like(scale), 0.0, 0
    for step in range(25):
        torch.testing.assert_close(losses[step], loss_at(x, step), rtol=1e-9, atol=1e-9)
        gradient = gradient_at(x, step)
        trial = x - scale * gradient + momentum * (x - before)
        ahead, square = gradient_at(trial, step), float(gradient @ gradient)
        by_scale = -ahead * gradient / square
        by_scale = by_scale if scaling == "diagonal" else by_scale.sum().reshape(1)
        scale_squares = scale_squares + by_scale**2
        scale = (scale - 0.2 * by_scale / scale_squares.sqrt()).clamp(min=0)
        by_momentum = float(ahead @ (x - before)) / square
        momentum_squares += by_momentum**2
        if by_momentum:
            momentum = min(max(momentum - by_momentum / momentum_squares**0.5, 0.0), 0.9995)
        better = float(penalised(trial, step)) < float(penalised(x, step))
        null_steps += not better
        x, before = (trial if better else x), x
        torch.testing.assert_close(points[step], x, rtol=1e-9, atol=1e-9)
    hyper = stepper.hyper()
    assert hyper["lr"] == pytest.approx(float(scale.mean()), rel=1e-9)
    assert hyper["momentum"] == pytest.approx(momentum, rel=1e-9)
    assert 0 < null_steps < 25


def test_hdm_outruns_sgd_from_a_learning_rate_far_too_small():
    curvature = torch.logspace(-2, 1, 30, dtype=torch.float64)
    model, other = (Point(torch.ones(30, dtype=torch.float64)) for _ in range(2))
    stepper = HeavyBallHypergradient(model, lr=1e-4, weight_decay=0.0, meta_rate=0.1, scaling="diagonal")
    optimizer = torch.optim.SGD(other.parameters(), lr=1e-4)
    for _ in range(500):
        stepper.step(lambda: 0.5 * (curvature * model.x**2).sum(), None)
        optimizer.zero_grad()
        (0.5 * (curvature * other.x**2).sum()).backward()
        optimizer.step()
    reached, slow = (float((curvature * point.x.detach() ** 2).sum()) for point in (model, other))
    assert reached < 1e-6 * slow


@pytest.mark.parametrize("scaling", ["scalar", "diagonal"])
def test_a_trial_that_is_worse_is_a_null_step(start, scaling):
    model = Point(start)
    stepper = HeavyBallHypergradient(model, lr=100.0, weight_decay=DECAY, meta_rate=0.1, scaling=scaling)
    run(stepper, model, steps=1)
    assert torch.equal(model.x, start)
    assert stepper.hyper()["lr"] < 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_trial_that_is_not_finite_is_a_null_step_and_teaches_nothing(start, bad):
    model = Point(start)
    stepper = HeavyBallHypergradient(model, lr=0.1, weight_decay=DECAY, meta_rate=0.1, scaling="diagonal")
    run(stepper, model, steps=3)
    point, hyper = model.x.detach().clone(), stepper.hyper()

    def loss():
        here = torch.equal(model.x, point)
        return loss_at(model.x, 3) * (1.0 if here else bad)

    assert stepper.step(loss, None).isfinite()
    assert torch.equal(model.x, point)
    assert stepper.hyper() == hyper
    after, _ = run(stepper, model, steps=1, first=4)
    assert after[0].isfinite().all()
