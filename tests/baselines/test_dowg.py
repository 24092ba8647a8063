"""DoWG in float64, against its recursion written with plain tensors."""

import torch
from quadratics import DECAY, SIZE, Point, close, gradient_at, loss_at, run

from baselines.dowg import DistanceOverWeightedGradients


def test_dowg_is_its_recursion():
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = Point(start)
    stepper = DistanceOverWeightedGradients(model, weight_decay=DECAY, square_distance=1e-4)
    points, losses = run(stepper, model, steps=25)
    x, farthest, weighted = start, 1e-4, 0.0
    for step in range(25):
        close(losses[step], loss_at(x, step))
        gradient = gradient_at(x, step)
        farthest = max(farthest, float((x - start) @ (x - start)))
        weighted += farthest * float(gradient @ gradient)
        lr = farthest / (weighted**0.5 + 1e-4)
        x = x - lr * gradient
        close(points[step], x)
    close(torch.tensor(stepper.hyper()["lr"]), torch.tensor(lr))
    assert farthest > 1e-2
