"""A quadratic function for each batch, in float64, and steppers that go down on them."""

import torch
from torch import nn

SIZE, DECAY = 5, 0.03


class Point(nn.Module):
    def __init__(self, x):
        super().__init__()
        self.first, self.rest = nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone().reshape(1, -1))

    @property
    def x(self):
        return torch.cat([self.first, self.rest.reshape(-1)])


def quadratic(step):
    """The quadratic loss of one batch: a positive definite matrix and a vector."""
    generator = torch.Generator().manual_seed(step)
    root, linear = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((SIZE, SIZE), (SIZE,)))
    return root @ root.T / SIZE + torch.eye(SIZE, dtype=torch.float64), linear


def loss_at(x, step):
    matrix, linear = quadratic(step)
    return 0.5 * x @ matrix @ x - linear @ x


def penalised(x, step):
    return loss_at(x, step) + 0.5 * DECAY * x @ x


def gradient_at(x, step):
    matrix, linear = quadratic(step)
    return matrix @ x - linear + DECAY * x


def run(stepper, model, *, steps, first=0):
    """Points after each step, and the losses they returned."""
    points, losses = [], []
    for step in range(first, first + steps):
        losses.append(stepper.step(lambda step=step: loss_at(model.x, step), None))
        points.append(model.x.detach().clone())
    return points, losses


def close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
