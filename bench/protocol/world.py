"""The world that a run's inputs come from: it stands still, or turns with the run's steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class World:
    """How far inputs are turned at a step of the run: `degrees_per_epoch`, counter-clockwise, as long as the run lasts.

    The angle is a function of `step`, the number of updates that the run has made over all its trials, so that nothing has
    to be saved.  The runner sets it; `train` counts on with each update.
    """

    degrees_per_epoch: float = 0.0
    steps_per_epoch: int = 1
    step: int = 0

    @property
    def drifts(self) -> bool:
        """Whether the world of one step is another than that of the next."""
        return self.degrees_per_epoch != 0

    @property
    def degrees(self) -> float:
        """How far inputs are turned now, in [0, 360)."""
        return self.degrees_per_epoch * self.step / self.steps_per_epoch % 360

    def seen(self, inputs: Tensor) -> Tensor:
        """Returns inputs as they look now; the same tensor where they are not turned."""
        return rotated(inputs, self.degrees) if self.degrees else inputs


def rotated(inputs: Tensor, degrees: float) -> Tensor:
    """Images (n, channels, height, width), or flattened square ones (n, height · height), turned; corners become black."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate

    images = inputs
    if inputs.dim() == 2:
        side = math.isqrt(inputs.shape[1])
        if side * side != inputs.shape[1]:
            raise ValueError(f"rotate: inputs of {inputs.shape[1]} numbers are no square images")
        images = inputs.view(-1, 1, side, side)
    return rotate(images, degrees, InterpolationMode.BILINEAR).view_as(inputs)
