"""OSGM in float64 against the loop of its authors' code, written with plain tensors."""

import pytest
import torch
from quadratics import Point

from baselines.osgm import ScaledGradientMethod

SIZE, STEPS = 30, 400
CURVATURE = torch.logspace(-5, 1, SIZE, dtype=torch.float64)


def value_of(x):
    return 0.5 * (CURVATURE * x**2).sum()


def gradient_of(x):
    return CURVATURE * x


def reference(start, *, is_diagonal):
    """Points after each step, and how many of the steps were refused, and how many were followed by a line search."""
    generator, g = torch.Generator().manual_seed(0), gradient_of(start)
    smooth = 0.0
    for _ in range(3):
        delta = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        delta *= 1e-4 / delta.norm()
        smooth = max(smooth, float((gradient_of(start + delta) - g).norm()) / 1e-4)
    scale = torch.zeros(SIZE if is_diagonal else 1, dtype=torch.float64)
    scale_squares, beta, beta_squares, rate = torch.zeros_like(scale), 0.95, 0.0, 1 / smooth
    x = before = start
    dynamic, taken, guesses, points, refused, searched = True, 0, [], [], 0, 0
    for number in range(1, STEPS + 1):
        g, moved = gradient_of(x), x - before
        trial = end = x - scale * g + beta * moved
        ahead = gradient_of(trial)
        if not dynamic and ahead.norm() > 2 * g.norm():
            searched += 1
            eta, slope = 1.0, ahead @ (scale * ahead)
            while eta > 1e-6:
                end = trial - eta * scale * ahead
                if value_of(end) <= value_of(trial) - 0.5 * eta * slope:
                    break
                eta *= 0.8
        is_taken = bool(value_of(end) <= value_of(x))
        before = x
        square = g @ g + (1e-12 if dynamic else 0.25 * smooth**2 * (moved @ moved))
        by_scale = -ahead * g / square
        by_scale = by_scale if is_diagonal else by_scale.sum().reshape(1)
        by_beta = float(ahead @ moved / square)
        scale_squares, beta_squares = scale_squares + by_scale**2, beta_squares + by_beta**2
        scale = (scale - rate * by_scale / (scale_squares.sqrt() + 1e-12)).clamp(0, 1e5 / smooth)
        beta = min(max(beta - min(1.0, smooth) * by_beta / (beta_squares**0.5 + 1e-12), 0.0), 0.9995)
        refused += not is_taken
        taken = taken + 1 if is_taken else max(0, taken - 2)
        if is_taken:
            if (trial - x).norm() > 1e-3:
                guesses.append(float((ahead - g).norm() / (trial - x).norm()))
            x = end
        if dynamic and taken > 200:
            smooth, dynamic, scale_squares = sum(guesses) / len(guesses), False, torch.zeros_like(scale)
            rate = 1 / smooth
        if dynamic and number % 50 == 49:
            rate = max(0.8 * rate, 1e-3 / smooth)
        points.append(x)
    return points, refused, searched, dynamic


@pytest.mark.parametrize("scaling", ["scalar", "diagonal"])
def test_osgm_is_the_published_recursion(scaling):
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = Point(start)
    stepper = ScaledGradientMethod(model, weight_decay=0.0, scaling=scaling)
    expected, refused, searched, dynamic = reference(start, is_diagonal=scaling == "diagonal")
    for point in expected:
        stepper.step(lambda: value_of(model.x), None)
        torch.testing.assert_close(model.x.detach(), point, rtol=1e-6, atol=1e-6)
    assert value_of(model.x) < 1e-3 * value_of(start)
    assert (refused > 0, searched > 0, dynamic) == (True, True, False)


def test_a_trial_that_is_not_finite_is_refused_and_teaches_nothing():
    start = torch.ones(SIZE, dtype=torch.float64)
    model = Point(start)
    stepper = ScaledGradientMethod(model, weight_decay=0.0, scaling="diagonal")
    for _ in range(5):
        stepper.step(lambda: value_of(model.x), None)
    point, hyper = model.x.detach().clone(), stepper.hyper()
    stepper.step(lambda: value_of(model.x) * (1.0 if torch.equal(model.x, point) else float("nan")), None)
    assert torch.equal(model.x, point)
    assert stepper.hyper() == hyper
