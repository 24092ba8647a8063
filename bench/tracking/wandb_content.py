"""What Weights & Biases is given of a run: configuration, rows and summary, made of what the records receive alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from bench.records import Outcome, Status, title_of
from bench.records.json_files import finite
from bench.records.wandb_names import (
    CONFIG,
    COUNTED_SECONDS,
    DISTURBED,
    DIVERGED,
    ENDED_TRIALS,
    EPOCH,
    INVALID,
    IS_DIVERGED,
    IS_VALID,
    LAST,
    NONFINITE_VALUES,
    OUTCOME,
    SELECTED,
    STATUS,
    STEP,
    TRIAL_NUMBER,
    USED,
    WALL_SECONDS,
    hyper_metrics,
    metrics,
    scalar_metrics,
)

Row = dict[str, Any]
WITHOUT_TRIALS = ("population", "transplant")
"""Families of methods that repeat another one, but not in trials that are worth a W&B run each."""
HISTOGRAM_BINS = 32
LOSSES = ("validation_loss", "test_loss", "test_error")
FOLDERS = re.compile(r"""(?:^|(?<=\s))/\S*/|(?<=["'])/[^"'\n]*/""")
TRIAL_COLUMNS = ("trial", "status", "validation_loss", "steps", COUNTED_SECONDS)


def has_trials(method: Mapping[str, Any]) -> bool:
    """Returns whether a method's trials are W&B runs, whatever family a user's own search is of."""
    family = method.get("family") or method["name"]  # older specs have no family; these two are called like theirs
    return method.get("over") is not None and family not in WITHOUT_TRIALS


def config_of(run_id: str, experiment: str, spec: Mapping[str, Any]) -> Row:
    """Returns a run's configuration: flat keys, and the whole spec beside them."""
    method, shock, budget = spec["method"], spec.get("shock"), spec["budget"]
    trained = method.get("over") or method
    found = {
        "experiment": experiment,
        "run": run_id,
        "label": title_of(spec),
        "method": method["name"],
        "search": method["name"] if has_trials(method) else None,
        "family": method.get("family"),
        "optimizer": optimizer_of(trained),
        "task": spec["task"]["name"],
        "space": spec["space"]["name"],
        "seed": spec["seed"],
        "lr": trained.get("lr"),
        "weight_decay": trained.get("weight_decay"),
        "meta_rate": trained.get("meta_rate"),
        "shock": shock["label"] if shock else None,
        "budget": budget["amount"],
        "budget_unit": budget["unit"],
        "device": spec["device"],
        "protocol": spec.get("protocol"),
    }
    return {**{key: value for key, value in found.items() if value is not None}, "spec": without_folders(spec)}


def trial_config(record: Mapping[str, Any], config: Mapping[str, Any], method: Mapping[str, Any]) -> Row:
    """Returns a trial's configuration, given its search's and the search's method."""
    return {**record["hyper"], **config, "method": method["over"]["name"], TRIAL_NUMBER: record["trial"]}


def optimizer_of(method: Mapping[str, Any]) -> str:
    """Returns the optimizer of a method as specs hold it; methods without the option are SGD's or optimizers themselves."""
    optimizer = method.get("optimizer")
    if isinstance(optimizer, Mapping):
        return optimizer["name"]
    return "sgd" if method.get("family") == "online" else method["name"]


def drawn(spec: Mapping[str, Any], record: Mapping[str, Any]) -> Row:
    """Returns the hyperparameters with which a run's training starts, from its first evaluation.

    There are none for a method that repeats another one, since it has several trainings.
    """
    if spec["method"].get("over"):
        return {}
    starts = {name: values[0] for name, values in record["hyper"].items() if values and values[0] is not None}
    return {name: value for name, value in starts.items() if name in ("lr", "weight_decay") or name not in CONFIG}


def moment(record: Mapping[str, Any]) -> Row:
    """Returns where a record stands on all axes."""
    return {name: record[name] for name in (COUNTED_SECONDS, WALL_SECONDS, STEP, EPOCH, USED)}


def evaluation_row(record: Mapping[str, Any]) -> Row:
    """Returns the row of an evaluation: the selected model, the present one, hyperparameters and scalars."""
    row = {**moment(record), TRIAL_NUMBER: record["trial"]}
    row |= {metric: record[f"incumbent_{column}"] for metric, column in SELECTED.items()}
    row |= {metric: record[column] for metric, column in LAST.items()}
    for name, values in record["hyper"].items():
        row |= _hyper(name, values)
    named = scalar_metrics(record["scalars"])
    return row | {named[name]: value for name, value in record["scalars"].items()}


def _hyper(name: str, values: Sequence[float | None]) -> Row:
    keys = hyper_metrics(name, len(values))
    if len(keys) == len(values):
        return dict(zip(keys, values, strict=True))
    present = [value for value in values if value is not None]
    return dict(zip(keys, (median(present), histogram(present)), strict=True)) if present else {}


def histogram(values: Sequence[float]) -> Row:
    """Returns W&B's histogram of some values."""
    low, high = min(values), max(values)
    if not math.nextafter(low, math.inf) < high or not math.isfinite(high - low):  # numpy finds no bins in between
        return {"_type": "histogram", "values": [len(values)], "bins": [low, high]}
    counts, edges = np.histogram(values, HISTOGRAM_BINS) if (high - low) / HISTOGRAM_BINS else ([len(values)], [low, high])
    return {"_type": "histogram", "values": list(map(int, counts)), "bins": list(map(float, edges))}


def incumbent_row(record: Mapping[str, Any]) -> Row:
    """Returns the row of a model that selection has just chosen."""
    return {
        **moment(record), TRIAL_NUMBER: record["trial"],
        **{metric: record[column] for metric, column in SELECTED.items()},
    }  # fmt: skip


def nonfinite_values(record: Mapping[str, Any]) -> int:
    """Returns how many of an evaluation's values are not finite.

    The training loss is not counted, because before a training's first step there is none.
    """
    lists = ([record[name] for name in LOSSES], list(record["scalars"].values()), *record["hyper"].values())
    return sum(values.count(None) for values in lists)


def trial_table(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Returns the columns and lines of a search's table of trials."""
    searched = list(dict.fromkeys(name for record in records for name in record["hyper"]))
    lines = [
        [*(record.get(name) for name in TRIAL_COLUMNS), *(record["hyper"].get(name) for name in searched)]
        for record in records
    ]
    return [*TRIAL_COLUMNS, *searched], lines


def summary_of(outcome: Outcome, nonfinite: int) -> Row:
    """Returns a run's summary, the selected model first."""
    final = outcome.final
    found = {metric: final.get(f"incumbent_{column}") for metric, column in SELECTED.items()}
    found |= {
        STATUS: str(outcome.status),
        IS_DIVERGED: outcome.status == "diverged",
        IS_VALID: outcome.valid,
        "invalid_because": "; ".join(outcome.invalid_because) or None,
        "disturbed_because": "; ".join(outcome.disturbed_because) or None,
        NONFINITE_VALUES: nonfinite,
        ENDED_TRIALS: outcome.trials or None,
        "selected_step": final.get("selected_step"),
        COUNTED_SECONDS: outcome.counted_seconds,
        "shared_by": outcome.shared_by if outcome.shared_by > 1 else None,
        OUTCOME: as_text({**asdict(outcome), "message": outcome.last_line}),
    }
    found |= {metric: final.get(column) for metric, column in LAST.items()}
    found |= _section("seconds", outcome.accounts)
    found |= _section("environment", without_folders(outcome.environment))
    return {key: value for key, value in found.items() if value is not None and not _is_nonfinite(value)}


def _is_nonfinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _section(name: str, values: Mapping[str, Any]) -> Row:
    keys = metrics(values, lambda key: f"{name}/{key}")
    return {keys[key]: value for key, value in values.items()}


def tags_of(outcome: Outcome) -> list[str]:
    """Returns the tags that a run gets at its end."""
    void = [INVALID] if outcome.invalid_because else [DISTURBED] if outcome.disturbed_because else []
    return [*void, *([DIVERGED] if outcome.status == "diverged" else [])]


def alert_of(outcome: Outcome, name: str, experiment: str) -> tuple[str, str] | None:
    """Returns the title and the text of the alert that a run's end is worth: it diverged or failed."""
    if outcome.status not in (Status.DIVERGED, Status.FAILED):
        return None
    why = without_folders(outcome.last_line)
    text = f"{name}, of experiment {experiment}, {outcome.status} after {outcome.counted_seconds:.1f} counted seconds"
    return f"{outcome.status}: {name}", f"{text}: {why}" if why else f"{text}."


def without_folders(value: Any) -> Any:
    """Returns a value in which each absolute path is its last name alone, because folders tell who the user is."""
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return FOLDERS.sub("", value) if isinstance(value, str) else value


def as_text(value: Mapping[str, Any]) -> str:
    """Returns a plan or an outcome as JSON without folders: as text, its numbers are kept as they are."""
    return json.dumps(without_folders(finite(value)))


def flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a row's values by the names that W&B gives them, in which a dot stands before what is nested."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
