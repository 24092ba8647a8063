"""What each figure looks like, pixel by pixel, beside an image that was looked at when it was kept.

After a wanted change: `REDRAW=1 pytest -m '' tests/reports/test_images.py`, and look at tests/reports/images before
committing.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from made_up_experiments import METHODS, drifting, write_drift, write_many, write_tasks
from made_up_runs import LOSSES, errors, part_of, shocked_runs, write_curves, write_folder, write_oho
from matplotlib.testing.compare import compare_images

from reports.loading import load
from reports.registry import FIGURES
from reports.style import figure_style
from reports.tables import read_tables

KEPT = Path(__file__).parent / "images"
TOLERANCE = 2.0
"""Root mean square over pixels, of 255: text that moved by one pixel gives more."""
SEEDS = (0, 1, 2, 3)


def losses(*ends):
    """Made up, not measured: a seed's losses fall from 2.3 to about `end`."""
    return [[2.3 * 0.5**k + end * (1 + 0.1 * seed) for k in range(6)] for seed, end in enumerate(ends)]


SELECTED = {
    **LOSSES, ("adam", None): losses(0.2, 0.3, 0.25), ("cosine", None): losses(0.3, 0.2, 0.4),
    ("oho-default", None): losses(0.1, 0.12, 0.1), ("oho-full", None): losses(0.15, 0.2, 0.1),
    ("random-search", "adam"): losses(0.1, 0.1, 0.3), ("bayesian-search", "fixed"): losses(0.5, 0.6, 0.7),
}  # fmt: skip


def path(end, rate=0.1, norm=10.0, sets=1):
    """Evaluations (step, loss, learning rates, norms) of a made-up training."""
    steps = np.arange(0, 101, 10)
    rates = rate * (0.3 / rate) ** (steps / 100)
    return [(int(s), 2.3 * 0.9 ** (s / 10) + end, [float(r)] * sets, (norm * (1 + s / 50), 3 * norm * (1 + s / 20)))
            for s, r in zip(steps, rates, strict=True)]  # fmt: skip


def settings_runs(figure):
    return {
        "convergence": [("oho-layerwise", {"lr": start, "meta_rate": 1e-3}, seed, path(0.2, start, sets=4))
                        for start in (1e-3, 1e-2, 1e-1) for seed in (0, 1)]
        + [(name, {"lr": None, "meta_rate": rate}, seed, path(0.1 + abs(np.log10(rate) + 3) / 5 + seed / 50))
           for name in ("oho-global", "oho-layerwise") for rate in (1e-4, 1e-3, 1e-2) for seed in SEEDS],
        "sets": [("oho-layerwise", {"influence": kind, "groups": sets // 2}, seed, path(0.3 / sets + seed / 50, sets=sets))
                 for kind in ("exact", "collapsed") for sets in (2, 4, 6) for seed in SEEDS],
        "reset": [("oho-global", {"reset_every": every}, seed, path(loss + seed / 20))
                  for every, loss in ((1, 0.5), (100, 0.3), (0, 0.2)) for seed in SEEDS],
        "stability": [("oho-global", {"lr": lr, "meta_rate": m}, seed, path(0.2, norm=lr * 100 * (1 + 1e4 * m) + seed))
                      for lr, m in ((0.01, 0.0), (0.1, 0.0), (1.0, 0.0), (0.1, 1e-4), (0.1, 1e-3)) for seed in SEEDS],
    }[figure]  # fmt: skip


def course(end, rate=0.1):
    return [(step, loss, rates[0]) for step, loss, rates, _ in path(end, rate)]


def curve_runs(figure):
    norms = {"influence_norm_lr": 20.0, "influence_norm_weight_decay": 30.0}
    alike = {"gradient_correlation_mean": 0.4, "gradient_correlation_deviation": 0.1}
    validated = [{"source": "validation", "validation_batch_size": size} for size in (20, 100, 359)]
    held = [("oho-global", options, seed, None, course(1 / options["validation_batch_size"] + seed / 50), {})
            for options in validated for seed in SEEDS]  # fmt: skip
    over = {**part_of("oho-global"), "label": "oho-global"}
    return {
        "tangents": [(name, {}, seed, None, course(0.2), alike | (norms if name != "fixed" else {}))
                     for name in ("fixed", "oho-global", "oho-default") for seed in SEEDS],
        "source": held + [("oho-global", {"source": "training"}, seed, None, course(0.5), {}) for seed in SEEDS]
        + [("fixed", {"lr": lr}, seed, None, course(lr), {}) for lr in (0.15, 0.6) for seed in SEEDS],
        "resiliency": shocked_runs(),
        "exactness": [(name, {}, seed, None, course(0.2 + seed / 20), errors(size, 3 * size, 0.2))
                      for name, size in (("oho-published", 0.3), ("oho-full", 0.1), ("oho-global", 0.0)) for seed in SEEDS],
        "transplant": [("oho-global", {}, seed, None, course(0.2 + seed / 20), {}) for seed in SEEDS]
        + [("transplant", {"order": order, "over": over}, seed, None, course(loss + seed / 20), {})
           for order, loss in (("kept", 0.25), ("shuffled", 0.5), ("mean", 0.3)) for seed in SEEDS],
        "profiles": [(name, {}, seed, None, course(loss * (1 + seed * tilt)), {})
                     for name, loss, tilt in (("fixed", 0.2, 1.0), ("adam", 0.3, 0.1), ("oho-global", 0.4, 0.0))
                     for seed in SEEDS],
        "sensitivity": [
            (name, {"lr": lr, "label": f"{label} from {lr:g}"}, seed, None, course(loss * (1 + seed / 9), lr), {})
            for name, label, losses in (("fixed", "SGD", (2.2, 0.9, 0.2)), ("oho-global", "OHO", (0.2, 0.15, 0.3)),
                                        ("adam", "Adam", (0.8, 0.1, 2.0)))
            for lr, loss in zip((1e-3, 1e-2, 1e-1), losses, strict=True) for seed in SEEDS
        ],
    }[figure]  # fmt: skip


MADE = {"drift": lambda root: write_drift(root, drifting()), "many": write_many,
        "summary": lambda root: write_tasks(root, METHODS, late=2)}  # fmt: skip


def tables_of(figure, root):
    if figure in MADE:
        return MADE[figure](root)
    if figure in ("distribution", "performance", "anytime"):
        write_folder(root, SELECTED)
        return read_tables(root)
    if figure in ("convergence", "sets", "reset", "stability"):
        return write_oho(root, figure, settings_runs(figure))
    return write_curves(root, figure, curve_runs(figure))


QUICK = ("distribution", "convergence", "anytime", "resiliency", "performance")
"""Figures of one, two and several panels.  Slow tests compare how the others look; quick ones draw them."""


def looks(figure, folder, *, column):
    module = load(figure, (), folder).module
    tables = tables_of(figure, folder / "runs")
    estimates = module.estimate(tables)
    name = f"{figure}{'-column' if column else ''}.png"
    with figure_style(column=column, methods=tables.methods):
        module.draw(estimates).savefig(folder / name, dpi=60)
    if os.environ.get("REDRAW"):
        KEPT.mkdir(exist_ok=True)
        (KEPT / name).write_bytes((folder / name).read_bytes())
    difference = compare_images(str(KEPT / name), str(folder / name), tol=TOLERANCE)
    assert difference is None, difference


def some(*quick):
    return [figure if figure in quick else pytest.param(figure, marks=pytest.mark.slow) for figure in FIGURES]


@pytest.mark.parametrize("figure", some(*QUICK))
def test_it_looks_as_it_did(figure, tmp_path):
    looks(figure, tmp_path, column=False)


@pytest.mark.parametrize("figure", some("anytime"))
def test_it_looks_as_it_did_in_a_column(figure, tmp_path):
    looks(figure, tmp_path, column=True)
