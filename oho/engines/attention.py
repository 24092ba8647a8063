"""Fused attention, written out in functions that the tape knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def can_be_written_out(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> bool:  # fmt: skip
    """Returns whether `written_out` computes scaled_dot_product_attention of these arguments."""
    if dropout_p != 0 or enable_gqa or (is_causal and attn_mask is not None):
        return False
    return query.ndim >= 3 and query.shape[:-2] == key.shape[:-2] == value.shape[:-2]


def written_out(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Computes scaled_dot_product_attention with functions that the tape knows."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -math.inf)
    if is_causal or attn_mask.requires_grad:
        return (scores + attn_mask).softmax(-1) @ value
    sees_nothing = attn_mask.isneginf().all(-1, keepdim=True)  # its output is 0, as in PyTorch
    shares = (scores + attn_mask.masked_fill(sees_nothing, 0)).softmax(-1) * ~sees_nothing
    return shares @ value
