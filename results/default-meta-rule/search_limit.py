"""Measures limits of the influence, over each rule, with the windows of the default and otherwise its settings.

    python results/default-meta-rule/search_limit.py [--tasks TASK ...] [--over RULE ...] [--steps N] [--starts LR ...] ...
    python results/default-meta-rule/search_limit.py --table

Appends one line a run to limits.csv; what is found there is not run again.  Candidates are compared on validation loss,
that of the selected model; test losses are there for the report.  A step costs the same with each limit.
"""

from __future__ import annotations

from pathlib import Path

from averaged_runs import FOUND, made, measure, parser, table

DRAWN = "drawn"
TABLE = Path(__file__).parent / "limits.csv"
TASKS = ("mnist-mlp", "fashion-mnist-mlp", "digits-mlp", "fashion-cnn")
OVER = {
    "sgd": "sgd",
    "momentum": "momentum",
    "nesterov": "{name: momentum, nesterov: true}",
    "adam": "adam",
    "adamw": "adamw",
}
"""The rules as a configuration names them."""
ALIKE = ("task", "over", "steps", "start", "limit")
KEYS = (*ALIKE, "seed")


def measured(task: str, over: str, steps: int, start: str, limit: float, seed: int) -> list[object]:
    """Makes one run and returns its line."""
    given = "" if start == DRAWN else f", lr: {start}, weight_decay: 1e-4"
    found = made(task, OVER[over], steps=steps, seed=seed, options={"influence_limit": limit}, given=given)
    return [task, over, steps, start, limit, seed, *found]


def described() -> str:
    """Returns a line for each task, rule, start and limit: medians over seeds, and the range of the last learning rates."""
    head = ("task", "over", "steps", "start", "limit", "seeds", "validation: median, worst", "test", "last learning rates")
    return table(TABLE, ALIKE, head, "lr")


def main() -> None:
    """Reads the command line."""
    options = parser(__doc__, tasks=TASKS, usual=["mnist-mlp"], seeds=[30, 31, 32])
    options.add_argument("--over", nargs="+", choices=list(OVER), default=["momentum"])
    options.add_argument("--steps", type=int, default=4000)
    options.add_argument("--starts", nargs="+", default=[DRAWN], help="first learning rates")
    options.add_argument("--limits", nargs="+", type=float, default=[0.03, 0.1, 0.3, 1.0])
    given = options.parse_args()
    if given.table:
        print(described())
        return
    wanted = [
        (task, over, given.steps, start, limit, seed)
        for seed in given.seeds
        for task in given.tasks
        for over in given.over
        for start in given.starts
        for limit in given.limits
    ]
    measure(TABLE, KEYS, wanted, measured, (*KEYS, *FOUND))


if __name__ == "__main__":
    main()
