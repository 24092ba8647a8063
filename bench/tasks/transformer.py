"""A small decoder-only transformer, whose derivatives exist to any order on every device.

    symbol  name         shape                equation
    x       stream       (n, T, d)            sum of what the layers add to it, d the width
    q, k, v projections  (n, heads, T, d/h)   of the normalised stream
    A       attention    (n, heads, T, T)     softmax(q kᵀ / √(d/h)), 0 at later places
    y       logits       (n, T, characters)

The attention is written out: fused kernels have only first derivatives, and hypergradients need second ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    hidden: Tensor

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.heads = heads
        self.projections, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        later = torch.ones(context, context, dtype=torch.bool).triu(1)
        self.register_buffer("hidden", torch.zeros(context, context).masked_fill(later, -torch.inf), persistent=False)

    def forward(self, stream: Tensor) -> Tensor:
        """Returns outputs of the stream's shape (n, T, d); T is at most the context."""
        count, length, width = stream.shape
        query, key, value = (
            part.view(count, length, self.heads, -1).transpose(1, 2) for part in self.projections(stream).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(width / self.heads)
        seen = (scores + self.hidden[:length, :length]).softmax(-1) @ value
        return self.output(seen.transpose(1, 2).reshape(count, length, width))


class Block(nn.Module):
    """A block of attention, then two linear layers with GELU, each applied to the normalised stream and added to it."""

    def __init__(self, width: int, heads: int, context: int):
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), Attention(width, heads, context)
        self.before_layers = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, stream: Tensor) -> Tensor:
        """Returns the stream (n, T, d) with what this block adds."""
        stream = stream + self.attention(self.before_attention(stream))
        return stream + self.layers(self.before_layers(stream))


class Transformer(nn.Module):
    """A model from characters (n, T) int64 to logits (n, T, characters) of the character that follows each of them."""

    def __init__(self, characters: int, *, context: int, width: int, heads: int, layers: int):
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(context, width)
        for embedding in (self.characters, self.places):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, context) for _ in range(layers)))
        self.normalise, self.logits = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the logits for texts no longer than the context."""
        places = torch.arange(inputs.shape[1], device=inputs.device)
        return self.logits(self.normalise(self.blocks(self.characters(inputs) + self.places(places))))
