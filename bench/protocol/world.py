"""The world that a run's inputs come from, which stands still or turns with the run's steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class World:
    """A world that turns inputs by `degrees_per_epoch`, counter-clockwise, for as long as the run lasts.

    The angle is a function of `step`, the number of updates that the run has made over all its trials, so that nothing has
    to be saved.  The runner sets `step`; `train` increments it with each update.
    """

    degrees_per_epoch: float = 0.0
    steps_per_epoch: int = 1
    step: int = 0

    @property
    def drifts(self) -> bool:
        """Whether the world changes from step to step."""
        return self.degrees_per_epoch != 0

    @property
    def degrees(self) -> float:
        """The angle by which inputs are turned now, in [0, 360)."""
        return self.degrees_per_epoch * self.step / self.steps_per_epoch % 360

    def seen(self, inputs: Tensor) -> Tensor:
        """Returns inputs as they look now, which is the same tensor if they are not turned."""
        return rotated(inputs, self.degrees) if self.degrees else inputs


def rotated(inputs: Tensor, degrees: float) -> Tensor:
    """Turns images (n, channels, height, width), or flattened square ones (n, height · height); corners become black."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate

    images = inputs
    if inputs.dim() == 2:
        side = math.isqrt(inputs.shape[1])
        if side * side != inputs.shape[1]:
            raise ValueError(f"rotate: inputs of {inputs.shape[1]} numbers are not square images")
        images = inputs.view(-1, 1, side, side)
    return rotate(images, degrees, InterpolationMode.BILINEAR).view_as(inputs)
