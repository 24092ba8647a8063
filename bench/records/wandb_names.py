"""The names that runs have in Weights & Biases: groups, keys of the configuration and the summary, metrics, tags.

`bench.tracking` writes them, dashboards read them.  Metrics keep to W&B's rules: `[a-z0-9_/]`, no dots, no hyphens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.records.identity import title_of
from bench.records.names import clipped, hash_of

LONGEST_NAME = LONGEST_GROUP = 128
LONGEST_TAG = 64
"""What W&B takes, in characters."""
LONGEST_METRIC = 100

TRIAL_RUNS = 50
"""The number of trials of a search that are W&B runs, unless `tracking.trial_runs` says otherwise."""

RUN, SEARCH, TRIAL = "run", "search", "trial"
"""Job types: a run, a run whose method repeats another one in trials, and one of its trials."""
INVALID, DIVERGED, DISTURBED = "invalid", "diverged", "disturbed"
"""Tags of runs that are void, whose training became non-finite, and whose seconds are void though no budget."""

CONFIG = {
    "experiment": "the experiment's name",
    "run": "the run's id, which is its folder's name; a trial has that of its search",
    "label": "the method's label and, after a semicolon, the shock's: what figures call the run",
    "method": "the method's name; a trial's is that of the method which the search repeats",
    "search": "the name of the search, for searches and trials",
    "trial": "the trial's number from 0, for trials alone",
    "family": "online, training, search, population, one-step, tuning-free, transplant or another; the search's for trials",
    "optimizer": "sgd, momentum, adam, adamw, or the method's own",
    "task": "the task's name",
    "space": "the space's name",
    "seed": "the seed",
    "lr": "the learning rate as given or drawn; absent where a search chooses it",
    "weight_decay": "the L2 coefficient as given or drawn; absent where a search chooses it",
    "meta_rate": "the rate of hyperparameters, for methods that have one",
    "shock": "the shock's label, for runs with a shock",
    "budget": "the amount of the budget, in `budget_unit`",
    "budget_unit": "seconds, plain_steps, steps or epochs",
    "device": "cpu or cuda",
    "protocol": "the version of the measuring protocol",
    "commit": "the commit that the run was made with, known at its end",
    "spec": "the whole spec, nested",
    "plan": "the experiment's resolved configuration and figures as JSON, from which `oho-bench import-wandb` makes a plan",
}  # fmt: skip
"""Flat keys of a W&B run's configuration.  Other hyperparameters that were drawn stand beside `lr` by their own names."""

PLAN, RECORDS, OUTCOME = "plan", "records", "outcome"
"""What `oho-bench import-wandb` reads, as JSON: in the configuration the plan, in each row the lines of the records since
the row before, in the summary the outcome."""

COUNTED_SECONDS, WALL_SECONDS, STEP, EPOCH = "counted_seconds", "wall_seconds", "step", "epoch"
USED = "used"
"""How much of the budget has been used, in its unit."""
AXES = {"seconds": COUNTED_SECONDS, "plain_steps": USED, "steps": STEP, "epochs": EPOCH}
"""The default x-axis by the budget's unit; every row has all of them."""

BEST_VALIDATION_LOSS, SELECTED_TEST_LOSS, SELECTED_TEST_ERROR = (
    "best_validation_loss", "selected_test_loss", "selected_test_error",
)  # fmt: skip
SELECTED = {
    BEST_VALIDATION_LOSS: "validation_loss", SELECTED_TEST_LOSS: "test_loss", SELECTED_TEST_ERROR: "test_error",
}  # fmt: skip
"""Metrics of the model that selection has kept so far, by the column of the records' incumbents."""
LAST = {f"last/{name}": name for name in ("train_loss", "validation_loss", "test_loss", "test_error")}
"""Metrics of the present model, whose last values are the last model's."""
NONFINITE_VALUES = "nonfinite_values"
"""The number of values so far that were not finite, and that W&B therefore does not show."""
TRIAL_NUMBER, SHOCK, OBJECTIVE = "trial", "shock", "objective"
"""A row's trial; the text of a shock's event; in a trial's run, the validation loss that it returned to its search."""
TRIALS, ENDED_TRIALS = "trials", "ended_trials"
"""A search's table of all its trials, and in the summary their number."""

STATUS, IS_DIVERGED, IS_VALID = "status", "diverged", "valid"
SUMMARY = {
    **dict.fromkeys(SELECTED, "of the selected model"),
    STATUS: "budget_reached, diverged, failed or interrupted",
    IS_DIVERGED: "whether the training became non-finite",
    IS_VALID: "false if something disturbed the clock that is the run's budget",
    "invalid_because": "why the run is void, if it is",
    "disturbed_because": "why the run's seconds are void, if they are",
    NONFINITE_VALUES: "how many values were not finite",
    ENDED_TRIALS: "the number of trials that have ended, for searches",
    "selected_step": "the step at which the selected model was found",
    **dict.fromkeys(LAST, "of the last model"),
    "seconds/ACCOUNT": "the ledger's accounts: train, hypergradient, selection, search; setup, evaluation, ...",
    "environment/NAME": "versions and device",
    "outcome": "the whole outcome as JSON",
}  # fmt: skip
"""Keys of the summary that a run gets at its end; each metric's last value stands there, too."""

MOST_SINGLE_SETS = 8
"""Of more sets than these, a metric has a histogram and a median instead of one value for each."""
SECTIONS = (
    "influence_norm", "hypergradient_error", "hypergradient_wrong_sign", "hypergradient_bias", "hypergradient_noise",
    "hypergradient", "skipped", "gradient_correlation",
)  # fmt: skip
"""What a method's scalars begin with to be in a section of their own: `influence_norm_lr` is `influence_norm/lr`."""


def axis_of(spec: Mapping[str, Any]) -> str:
    """Returns the default x-axis of a run: what its budget is measured in."""
    return AXES[spec["budget"]["unit"]]


def group_of(experiment: str, spec: Mapping[str, Any]) -> str:
    """Returns the group of a run and of its trials: the seeds of one method on one task in one experiment."""
    return plain(f"{experiment}, {spec['task']['name']}, {title_of(spec)}", LONGEST_GROUP)


def run_name(spec: Mapping[str, Any]) -> str:
    """Returns a run's display name."""
    return plain(f"{title_of(spec)}, seed {spec['seed']}", LONGEST_NAME)


def trial_name(spec: Mapping[str, Any], trial: int) -> str:
    """Returns the display name of a search's trial."""
    return plain(f"{title_of(spec)}, seed {spec['seed']}, trial {trial}", LONGEST_NAME)


def plain(text: str, longest: int) -> str:
    """Returns a name of at most so many characters, without those that addresses and filters use themselves."""
    text = re.sub(r"[:;] ", ", ", text)
    return clipped(re.sub(r"[/\\#?%:\"'`]", "-", text), longest)


def hyper_metrics(name: str, sets: int) -> list[str]:
    """Returns the metrics of a hyperparameter with so many sets: one a set, or of many sets their median and histogram."""
    base = metric(f"hyper/{name}")
    if sets == 1:
        return [base]
    return [f"{base}/{index}" for index in range(sets)] if sets <= MOST_SINGLE_SETS else [f"{base}/median", f"{base}/sets"]


def scalar_metrics(names: Iterable[str]) -> dict[str, str]:
    """Returns the metric of each of a method's scalars."""
    return metrics(names, _section)


def metrics(names: Iterable[str], place: Callable[[str], str]) -> dict[str, str]:
    """Returns the metric `place(name)` of each name; where two would be the same, a hash keeps them apart."""
    found = {name: metric(place(name)) for name in names}
    counts = Counter(found.values())
    return {
        name: key if counts[key] == 1 or key == place(name) else f"{key}_{hash_of(name)}" for name, key in found.items()
    }


def metric(name: str) -> str:
    """Returns a name as W&B's rules want it: lower case, underscores in the place of other characters."""
    fitting = re.sub(r"[^a-z0-9_/]", "_", name.lower())
    return fitting if len(fitting) <= LONGEST_METRIC else f"{fitting[:LONGEST_METRIC]}_{hash_of(name)}"


def _section(name: str) -> str:
    if name == "shortened":
        return "steps/shortened"
    for section in SECTIONS:
        if name.startswith(f"{section}_"):
            rest = re.sub(r"_(\d+)$", r"/\1", name.removeprefix(f"{section}_"))  # the number of a set
            return f"steps/skipped_{rest}" if section == "skipped" else f"{section}/{rest}"
    return f"scalars/{name}"
