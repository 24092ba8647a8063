"""Values of the published figures, read off by eye.  Source: arXiv 2102.07813."""

from __future__ import annotations

SOURCE = "arXiv 2102.07813, read off its figures by eye"

DISTRIBUTION_MEDIAN: dict[str, dict[str, float]] = {
    "mnist": {"fixed": 0.118, "cosine": 0.113, "step": 0.115, "exponential": 0.102, "oho-global": 0.068,
              "oho-layerwise": 0.068},
    "cifar10": {"fixed": 0.56, "cosine": 0.60, "step": 0.59, "exponential": 0.58, "oho-global": 0.42,
                "oho-layerwise": 0.37},
}  # fmt: skip
"""Median final test loss, nats per example."""

PERFORMANCE: dict[str, dict[str, tuple[float, float]]] = {
    "random-search": {"fixed": (139, 137), "adam": (136, 135), "step": (139, 142), "cosine": (129, 127),
                      "exponential": (28, 27), "oho-global": (1, 6)},
    "bayesian-search": {"fixed": (84, 98), "adam": (42, 40), "step": (84, 101), "cosine": (84, 107),
                        "exponential": (17, 17), "oho-global": (1, 10)},
}  # fmt: skip
"""Trials, and hours, to reach Global OHO's test loss."""


SETS: dict[str, dict[int, float]] = {
    "mnist": {1: 0.076, 2: 0.077, 3: 0.074, 4: 0.073, 6: 0.067},
    "cifar10": {1: 0.58, 2: 0.57, 3: 0.54, 4: 0.50, 62: 0.35},
}
"""Median test loss by number of sets, collapsed influence (figure 4)."""

RESET: dict[int, float] = {1: 0.46, 100: 0.44, 1000: 0.425, 0: 0.39}
"""Median test loss by steps between resets on CIFAR-10, 0 for never (figure 10)."""


def data_set(task: str) -> str:
    """The published data set that a task is on, or the task's own name."""
    return next((name for name in DISTRIBUTION_MEDIAN if task.startswith(name)), task)
