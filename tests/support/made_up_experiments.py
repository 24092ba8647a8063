"""Results folders of whole experiments that nobody has made: worlds that change, many values to tune, several tasks."""

from made_up_runs import evaluation, incumbent, spec_of, write_run

from bench.records import Manifest, write_manifest
from reports.tables import read_tables

TURNING = {"rotate": 90.0, "over_epochs": 20.0}
SHIFTS = {"label": "labels shift", "events": [{"epoch": 5.0, "shift_labels": 1}]}


def write_drift(root, runs, *, task=None):
    """`runs`: (method, shock, seed, losses at epochs 0, 10, 20)."""
    ids = []
    for name, shock, seed, losses in runs:
        spec = spec_of(name, seed)
        spec["task"] |= {"drift": TURNING} if task is None else task
        spec |= {"shock": shock} if shock else {}
        records = [incumbent(0, 2.3), *(evaluation(100 * place, loss) for place, loss in enumerate(losses))]
        ids.append(write_run(root, spec, records))
    write_manifest(root, Manifest("drift", ("drift",), {}, tuple(ids)))
    return read_tables(root)


def drifting():
    ends = {"fixed": ([2.0, 1.0, 1.0], [2.0, 1.0, 4.0]), "oho-default": ([2.0, 0.4, 0.2], [2.0, 0.4, 1.0])}
    return [(name, shock, seed, [loss + seed / 10 for loss in losses])
            for name, (turned, shifted) in ends.items() for shock, losses in ((None, turned), (SHIFTS, shifted))
            for seed in (0, 1, 2)]  # fmt: skip


OF_SETS = (
    ("oho-global", None, 1, 0.1, 0), ("oho-layerwise", None, 6, 0.1, 0),
    ("random-search", "fixed", 1, 0.2, 8), ("random-search", "fixed", 6, 0.8, 8), ("tpe-search", "fixed", 6, 0.5, 8),
)  # fmt: skip
"""OHO ends at .1 however many values it has; random search at .2 with 2, .8 with 12, TPE has hardly any trials."""


def write_many(root, methods=OF_SETS):
    """Writes runs of methods: each with the method over which it searches, its sets, its final loss and its trials."""
    ids = []
    for name, over, sets, loss, trials in methods:
        for seed in (0, 1, 2):
            spec = spec_of(name, seed, over)
            spec["method"]["label"] += f", {2 * sets} values"
            if over:
                spec["method"]["over"]["label"] += f", {2 * sets} values"
            spec["method"] |= {"family": "search" if over else "online", "groups": sets // 2}
            records = [incumbent(50, loss + seed / 100), evaluation(100, loss + seed / 100)]
            records[1]["hyper"] = {"lr": [0.1] * sets, "weight_decay": [1e-4] * sets}
            starts = 10 if name == "tpe-search" else 0
            ids.append(write_run(root, spec, records, trials=trials, random_starts=starts))
    write_manifest(root, Manifest("many", ("many",), {}, tuple(ids)))
    return read_tables(root)


METHODS = {"fixed": (0.4, 0.8), "adam": (0.5, 0.5), "oho-global": (0.2, 1.0)}
"""Final losses on two tasks."""


def write_tasks(root, losses, *, figure="summary", unit="seconds", late=1):
    """An experiment for each task; `losses` maps a method to its loss on each, and all seeds of one are alike.

    A method is at its loss after one step or, with `late`, OHO after so many.
    """
    for place, task in enumerate(("digits-mlp", "mnist-mlp", "fashion-mnist-mlp")[: max(map(len, losses.values()))]):
        ids = []
        for name, values in losses.items():
            for seed in (0, 1, 2) if place < len(values) else ():
                spec = spec_of(name, seed, task=task)
                spec["budget"]["unit"] = unit
                step = 100 * (late if name.startswith("oho") else 1)
                ids.append(write_run(root, spec, [incumbent(step, values[place]), evaluation(step, values[place])]))
        write_manifest(root, Manifest(f"on-{task}", (figure,), {}, tuple(ids)))
    return read_tables(root)
