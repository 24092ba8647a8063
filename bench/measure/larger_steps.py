"""What a step of a larger model costs, a residual network's and a transformer's: `python -m bench.measure.larger_steps`.

The two steps of a pair take turns, the cheaper one before and after the other, as in `bench.measure.speed`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import oho
from bench.measure.speed import spread
from bench.measure.steps import Batches, Step, online, plain
from bench.measure.turns import mean_seconds
from bench.process.surroundings import begin
from bench.protocol.batch_norm import BatchNorm
from bench.run.environment import describe_environment, place_and_date
from bench.tasks.models import residual_network
from bench.tasks.transformer import Transformer
from oho.freed_memory import keep_freed_memory

IMAGES, WIDTH = 32, 16
PIECES, CONTEXT, CHARACTERS = 32, 64, 65
BATCHES = 4
RATE, DECAY = 0.01, 1e-4
TURN = 3
"""Steps of a turn."""


def residual(device: torch.device) -> Batches:
    """Returns a ResNet-18 of a quarter of the usual width on images of 32 x 32."""
    torch.manual_seed(0)
    model = residual_network(18, width=WIDTH, classes=10, mean=torch.zeros(3), deviation=torch.ones(3)).to(device)
    images = torch.randint(256, (BATCHES, IMAGES, 3, 32, 32), dtype=torch.uint8, device=device)
    targets = torch.randint(10, (BATCHES, IMAGES), device=device)
    return Batches(model, [(images, targets)] * 2)


def transformer(device: torch.device) -> Batches:
    """Returns the decoder of `shakespeare-transformer`."""
    torch.manual_seed(0)
    model = Transformer(CHARACTERS, context=CONTEXT, width=64, heads=4, layers=2).to(device)
    pieces, following = torch.randint(CHARACTERS, (2, BATCHES, PIECES, CONTEXT), device=device)
    return Batches(model, [(pieces, following)] * 2)


def with_torchs_norm(problem: Batches) -> Batches:
    """Returns the same with PyTorch's batch norm, which keeps running statistics."""
    model = deepcopy(problem.model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BatchNorm):
                setattr(module, name, nn.BatchNorm2d(len(child.weight), device=child.weight.device))
    return Batches(model, problem.splits)


class Pair(NamedTuple):
    """Two steps, the largest ratio of their times that is asked for, and the ratio of their multiply-adds."""

    above: str
    below: str
    make: Callable[[torch.device], tuple[Step, Step]]
    asked: float
    work: float


def _residual_exact(device: torch.device) -> tuple[Step, Step]:
    below = plain(torch.optim.SGD, lr=RATE, weight_decay=DECAY)
    return online(oho.SGD(RATE, DECAY))(residual(device)), below(residual(device))


def _residual_plain(device: torch.device) -> tuple[Step, Step]:
    step = plain(torch.optim.SGD, lr=RATE, weight_decay=DECAY)
    return step(residual(device)), step(with_torchs_norm(residual(device)))


def _transformer_exact(device: torch.device) -> tuple[Step, Step]:
    return online(oho.AdamW(0.001))(transformer(device)), plain(torch.optim.AdamW, lr=0.001)(transformer(device))


PAIRS = (
    Pair("ResNet-18, Global", "ResNet-18, SGD", _residual_exact, 4.7, 6.0),
    Pair("ResNet-18, SGD", "the same with torch.nn.BatchNorm2d", _residual_plain, 1.05, 1.0),
    Pair("transformer, Global, AdamW", "transformer, AdamW", _transformer_exact, 4.0, 6.0),
)
"""Multiply-adds: two gradients, and two for each of 2 directions where the first layer is a small part of the whole."""


def ratios(pair: Pair, device: torch.device, rounds: int) -> list[float]:
    """Returns one ratio for each round."""
    above, below = pair.make(device)
    for step in (above, below):
        mean_seconds(step, TURN, device)
    found = []
    for _ in range(rounds):
        before, seconds, after = (mean_seconds(step, TURN, device) for step in (below, above, below))
        found.append(2 * seconds / (before + after))
    return found


def main() -> None:
    """Prints the table, and adds it to the file of `--out` if that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    found = {pair: ratios(pair, device, given.rounds) for pair in PAIRS}
    lines = [
        "## Larger models",
        "",
        place_and_date(describe_environment(device, given.threads, data=None)),
        f"Equal batches for training and validation: {IMAGES} images (ResNet-18 of width {WIDTH}), {PIECES} pieces of"
        f" {CONTEXT} characters. {given.rounds} turns a pair.",
        "",
        "| step | over | × : median [quartiles] | asked | multiply-adds, × |",
        "|---|---|---|---|---|",
        *(f"| {p.above} | {p.below} | {spread(values)} | ≤ {p.asked:.2f} | {p.work} |" for p, values in found.items()),
    ]
    print("\n".join(lines))
    if given.out:
        text = given.out.read_text(encoding="utf-8") if given.out.exists() else ""
        before = text.split("## Larger models")[0].rstrip("\n")
        given.out.write_text("\n".join([*([before, ""] if before else []), *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    begin()
    main()
