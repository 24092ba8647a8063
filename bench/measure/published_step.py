"""One Global step laid out as in the published code: it computes, copies and moves the same things equally often.

The model carries the tangents, so that each of its five copies per step (two probes per product, one for the validation
loss) copies them too; gradients pass through NumPy for a correlation; norms and an angle are taken of everything.
`oho.PublishedOHO` computes the same recursion without copies.

Source: github.com/jiwoongim/OHO, commit 1c0bdd1, metaopt/mnist and metaopt/util_ml.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]
META_RATE, DECAY_SCALE, DECAY_MAX = 1e-6, 0.01, 2e-4


class Carrying(nn.Module):
    """A network with flat tangents and products, (N,) each, as plain attributes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        size = sum(p.numel() for p in network.parameters())
        device = next(network.parameters()).device
        self.tangents = {name: torch.zeros(size, device=device) for name in ("lr", "weight_decay")}
        self.products = {name: torch.zeros(size, device=device) for name in self.tangents}

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the network's outputs."""
        return self.network(inputs)


class PublishedStep:
    """An optimizer with the published layout: `step(train_loss, valid_loss)` takes two functions of a model."""

    def __init__(self, network: nn.Module, *, lr: float, weight_decay: float):
        self.model = Carrying(network)
        self.hyper = {"lr": lr, "weight_decay": weight_decay}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, weight_decay=weight_decay)
        self.watched: list[float] = []

    def step(self, train_loss: Loss, valid_loss: Loss) -> float:
        """Trains, moves the tangents and takes a meta-step; returns the training loss."""
        self.model.train()
        self.optimizer.zero_grad()
        loss = train_loss(self.model)
        loss.backward()
        direction = np.hstack([p.grad.cpu().numpy().flatten() for p in self.model.parameters() if p.grad is not None])
        direction = direction / np.sqrt(np.sum(np.square(direction)))
        self.optimizer.step()
        curved = {name: self._product(train_loss, tangent) for name, tangent in self.model.tangents.items()}
        held = self._gradient(copy.deepcopy(self.model), valid_loss)
        gradient = _flat([p.grad for p in self.model.parameters() if p.grad is not None])
        theta = _flat(list(self.model.parameters())).detach()
        self.watched = [_norm(gradient), _norm(theta), _norm(held)]
        self.watched.append(float(torch.dot(gradient / self.watched[0], held / self.watched[2])))
        for name, curve in curved.items():
            self._move(name, curve, gradient, theta, held)
        self.optimizer.param_groups[0].update(self.hyper)
        return loss.item()

    def _product(self, loss: Loss, tangent: Tensor) -> Tensor:
        """Returns central differences, with each side on a copy of the model."""
        sizes = [p.numel() for p in self.model.parameters()]
        pieces = [part.view(p.shape) for part, p in zip(tangent.split(sizes), self.model.parameters(), strict=True)]
        first = next(iter(self.model.parameters()))
        longest = pieces[0].abs().max().item() or 1.0
        width = max(0.001, float(np.sqrt(np.finfo(np.float32).eps)) * (1 + first.abs().max().item()) / longest)
        sides = []
        for sign in (1, -1):
            probe = copy.deepcopy(self.model).train()
            with torch.no_grad():
                for parameter, piece in zip(probe.parameters(), pieces, strict=True):
                    parameter.add_(sign * width * piece)
            sides.append(self._gradient(probe, loss))
        return (sides[0] - sides[1]) / (2 * width)

    def _gradient(self, model: nn.Module, loss: Loss) -> Tensor:
        model.zero_grad()
        loss(model).backward()
        return _flat([p.grad for p in model.parameters() if p.grad is not None])

    def _move(self, name: str, curve: Tensor, gradient: Tensor, theta: Tensor, held: Tensor) -> None:
        """Moves one tangent, then its hyperparameter."""
        rate, decay, tangents = self.hyper["lr"], self.hyper["weight_decay"], self.model.tangents
        self.model.products[name] = rate * curve
        self.watched += [_norm(self.model.products[name]), _norm(tangents[name])]
        source = gradient + 2 * decay * theta if name == "lr" else 2 * rate * theta
        tangents[name] = tangents[name] * (1 - 2 * decay * rate) - self.model.products[name] - source
        slope = float(held.dot(tangents[name]).cpu().numpy())
        if name == "lr":
            self.hyper["lr"] = max(0.0, rate - META_RATE * slope)
        else:
            self.hyper["weight_decay"] = min(DECAY_MAX, max(0.0, decay - DECAY_SCALE * META_RATE * slope))


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _norm(vector: Tensor) -> float:
    return torch.sqrt(torch.sum(torch.square(vector))).item()
