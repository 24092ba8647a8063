"""The noise of a batch, drawn by a network or for its inputs: a function of the batch's seed and of its purpose."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch

from bench.protocol.streams import stream_seed


class ReplayedNoise:
    """The noise of a step that a graph repeats: its generators stay, and the host seeds them before each step.

    A step gets the generators in the order in which it asks for them, those of each purpose apart.  `generators` is the
    list in which the graph finds them; several members may share one.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator] | None = None):
        self._device, self._seed = device, 0
        self._own: defaultdict[str, list[torch.Generator]] = defaultdict(list)
        self._given: Counter[str] = Counter()
        self.generators: list[torch.Generator] = [] if generators is None else generators
        """All of them so far, for the graph to know."""

    def begin(self, seed: int) -> None:
        """Seeds all generators for the next step."""
        self._seed = seed
        self._given.clear()
        for purpose, generators in self._own.items():
            for generator in generators:
                generator.manual_seed(_seed_of(seed, purpose))

    def generator(self, purpose: str) -> torch.Generator:
        """Returns one that has not drawn in this step."""
        own, index = self._own[purpose], self._given[purpose]
        self._given[purpose] += 1
        if index == len(own):
            own.append(torch.Generator(self._device).manual_seed(_seed_of(self._seed, purpose)))
            self.generators.append(own[-1])
        return own[index]


Noise = int | ReplayedNoise
"""A seed, or the noise of a step that a graph repeats."""


def generator_of(noise: Noise, device: torch.device, purpose: str = "") -> torch.Generator:
    """Returns a generator that has not drawn yet, which depends on the seed and on the purpose alone."""
    if isinstance(noise, ReplayedNoise):
        return noise.generator(purpose)
    return torch.Generator(device).manual_seed(_seed_of(noise, purpose))


def _seed_of(seed: int, purpose: str) -> int:
    return stream_seed(seed, purpose) if purpose else seed
