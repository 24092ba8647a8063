"""Measures what becomes of a weight decay drawn at random: Averaged OHO, several influences of the decay, the same starts.

    python results/default-meta-rule/search_decay.py [--tasks TASK ...] [--rules RULE ...] [--names NAME ...] [--seeds ...]
    python results/default-meta-rule/search_decay.py --table

Appends one line a run to decay.csv; what is found there is not run again.  Candidates are compared on validation loss, that
of the selected model; test losses are there for the report.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.experiment.expansion import load_experiment
from bench.records import read_runs
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

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
COLUMNS = ("task", "rule", "candidate", "seed", "lr_first", "decay_first", "validation", "test", "lr", "decay")
CONFIG = """
experiment: decay
figures: [anytime]
task: {{name: {task}}}
budget: {{steps: {steps}}}
space: fair
seeds: [{seed}]
evaluations: 10
threads: 1
tracking: {{mode: disabled}}
methods: [{{name: oho-averaged, optimizer: {rule}}}]
"""


def measured(task: str, rule: str, candidate: str, seed: int) -> list[object]:
    """Makes one run and returns its line."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "decay.yaml"
        path.write_text(CONFIG.format(task=task, rule=rule, seed=seed, steps=STEPS[task]), encoding="utf-8")
        (spec,) = load_experiment(path).specs
        spec = {**spec, "method": {**spec["method"], **CANDIDATES[candidate]}}
        run(spec, Path(name), data_root=None, open_sink=lambda *given: NoSink())
        (made,) = read_runs(Path(name))
    final = made.outcome.final
    first = {key: values[0] for key, values in made.evaluations[0]["hyper"].items()}
    losses = [f"{final[f'incumbent_{split}_loss']:.5f}" for split in ("validation", "test")]
    last = [f"{final['hyper'][name][0]:.3g}" for name in ("lr", "weight_decay")]
    return [task, rule, candidate, seed, f"{first['lr']:.3g}", f"{first['weight_decay']:.3g}", *losses, *last]


def rows() -> list[dict[str, str]]:
    """Returns what has been measured."""
    if not TABLE.exists():
        return []
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """Returns a line for each task, rule and candidate: medians over seeds, and the range of the last weight decays."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows():
        found.setdefault((row["task"], row["rule"], row["candidate"]), []).append(row)
    head = ("task", "over", "influence of the decay", "seeds", "validation: median, worst", "test", "last decays")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (task, rule, candidate), runs in sorted(found.items()):
        validation, test = (sorted(float(run[split]) for run in runs) for split in ("validation", "test"))
        decays = sorted(float(run["decay"]) for run in runs)
        lines.append(
            f"| {task} | {rule} | {candidate} | {len(runs)} | {statistics.median(validation):.3g}, {validation[-1]:.3g} |"
            f" {statistics.median(test):.3g} | {decays[0]:.1e} to {decays[-1]:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(STEPS), default=["mnist-mlp"])
    parser.add_argument("--rules", nargs="+", choices=("sgd", "momentum", "adamw"), default=["sgd"])
    parser.add_argument("--names", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[30, 31, 32])
    parser.add_argument("--table", action="store_true", help="print what was measured")
    given = parser.parse_args()
    if given.table:
        print(table())
        return
    torch.set_num_threads(1)
    wanted = [(t, r, c, s) for s in given.seeds for t in given.tasks for r in given.rules for c in given.names]
    for item in wanted:
        if any((row["task"], row["rule"], row["candidate"], int(row["seed"])) == item for row in rows()):
            continue
        line = measured(*item)
        is_new = not TABLE.exists()
        with TABLE.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([*([COLUMNS] if is_new else []), line])
        print(*line, flush=True)


if __name__ == "__main__":
    main()
