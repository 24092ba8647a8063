"""Random crops and flips of whole batches of images, on the device that holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class CropAndFlip:
    """An augmentation that pads images with black, crops them to their original size, and mirrors half of them."""

    padding: int = 4
    """Pixels on each side."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns choices for `count` images, (count, 3) int64: first row and column of the crop, and 1 for a mirror."""
        corners = torch.randint(2 * self.padding + 1, (count, 2), generator=generator)
        return torch.cat([corners, torch.randint(2, (count, 1), generator=generator)], dim=1)

    def apply(self, images: Tensor, choices: Tensor) -> Tensor:
        """Returns the images (n, channels, height, width), cropped and mirrored by the choices (n, 3), as a new tensor."""
        height, width = images.shape[-2:]
        rows = choices[:, 0, None] + torch.arange(height, device=images.device)
        columns = choices[:, 1, None] + torch.arange(width, device=images.device)
        columns = torch.where(choices[:, 2, None] == 1, columns.flip(1), columns)
        padded = functional.pad(images, [self.padding] * 4)
        places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
        flat = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return padded.flatten(2).gather(2, flat).view_as(images)
