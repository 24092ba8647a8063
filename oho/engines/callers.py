"""Where in the user's program a call into this package comes from."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

import torch

FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def caller() -> tuple[FrameType, int]:
    """Returns the nearest frame that is neither PyTorch's nor ours, and its distance in frames from our caller."""
    frame, level = sys._getframe(1), 0
    while frame.f_back is not None and frame.f_code.co_filename.startswith(FOREIGN):
        frame, level = frame.f_back, level + 1
    return frame, level


def say(what: str) -> None:
    """Warns at the line of the user's program that called this package, directly or through PyTorch."""
    warnings.warn(what, stacklevel=caller()[1] + 1)
