"""Measures what becomes of a weight decay drawn at random: Averaged OHO, several influences of the decay, the same starts.

    python results/default-meta-rule/search_decay.py [--tasks TASK ...] [--rules RULE ...] [--names NAME ...] [--seeds ...]
    python results/default-meta-rule/search_decay.py --table

Appends one line a run to decay.csv; what is found there is not run again.  Candidates are compared on validation loss, that
of the selected model; test losses are there for the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from averaged_runs import FOUND, made, measure, parser, table

TABLE = Path(__file__).parent / "decay.csv"
STEPS = {"mnist-mlp": 7500, "fashion-mnist-mlp": 7500, "digits-mlp": 6000, "fashion-cnn": 1500}
"""Steps of Averaged OHO; those of the first two take the time of some 15,000 plain ones."""
CANDIDATES: dict[str, dict[str, Any]] = {
    "before": {"curvature_factor": {}, "tuned_after": {}},
    "fixed": {"tune": ["lr"], "curvature_factor": {}, "tuned_after": {}},
    "after 400": {"curvature_factor": {}, "tuned_after": {"weight_decay": 400}},
    "factor 0": {"curvature_factor": {"weight_decay": 0}, "tuned_after": {}},
    "factor 0, after 400": {"curvature_factor": {"weight_decay": 0}, "tuned_after": {"weight_decay": 400}},
    "factor .1, after 400": {"curvature_factor": {"weight_decay": 0.1}, "tuned_after": {"weight_decay": 400}},
    "factor .2, after 400": {"curvature_factor": {"weight_decay": 0.2}, "tuned_after": {"weight_decay": 400}},
    "factor .5, after 400": {"curvature_factor": {"weight_decay": 0.5}, "tuned_after": {"weight_decay": 400}},
    "both .5, after 400": {"curvature_factor": {"lr": 0.5, "weight_decay": 0.5}, "tuned_after": {"weight_decay": 400}},
}
KEYS = ("task", "rule", "candidate", "seed")


def measured(task: str, rule: str, candidate: str, seed: int) -> list[object]:
    """Makes one run and returns its line."""
    found = made(task, rule, steps=STEPS[task], seed=seed, options=CANDIDATES[candidate])
    return [task, rule, candidate, seed, *found]


def described() -> str:
    """Returns a line for each task, rule and candidate: medians over seeds, and the range of the last weight decays."""
    head = ("task", "over", "influence of the decay", "seeds", "validation: median, worst", "test", "last decays")
    return table(TABLE, KEYS[:3], head, "decay")


def main() -> None:
    """Reads the command line."""
    options = parser(__doc__, tasks=STEPS, usual=["mnist-mlp"], seeds=[30, 31, 32])
    options.add_argument("--rules", nargs="+", choices=("sgd", "momentum", "adamw"), default=["sgd"])
    options.add_argument("--names", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    given = options.parse_args()
    if given.table:
        print(described())
        return
    wanted = [(t, r, c, s) for s in given.seeds for t in given.tasks for r in given.rules for c in given.names]
    measure(TABLE, KEYS, wanted, measured, (*KEYS, *FOUND))


if __name__ == "__main__":
    main()
