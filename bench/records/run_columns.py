"""What a table says of one run: its columns, from its spec and its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.identity import run_id, title_of
from bench.records.processes import calibration
from bench.records.run_folder import Outcome, Run
from bench.records.schema import Status

OTHER_FAMILY = "other"
"""The family of methods whose specs, of an older version, have none."""
OLDEST_ENGINE = "eager"
"""The engine of runs whose outcomes, of an older version, name none."""
FINAL = ("test_loss", "test_error", "incumbent_validation_loss", "incumbent_test_loss", "incumbent_test_error")


def label_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns that only figures use: what a method and a shock are called, and how they are grouped."""
    method, shock = spec["method"], spec.get("shock") or {}
    over = method.get("over") or {}
    return {
        "family": method.get("family") or OTHER_FAMILY,
        "label": title_of(spec),
        "method_label": method["label"],
        "over_family": (over.get("family") or OTHER_FAMILY) if over else None,
        "over_label": over.get("label"),
        "shock": shock.get("label", ""),
    }


def run_row(run: Run) -> dict[str, Any]:
    """Returns the columns of a run, except for its experiment and its identity."""
    task, method, budget = run.spec["task"], run.spec["method"], run.spec["budget"]
    over = method.get("over") or {}
    row = {
        "task": task["name"],
        "task_id": run_id(task),
        "task_options": task,
        "method": method["name"],
        "over": over.get("name"),
        **label_columns(run.spec),
        "events": (run.spec.get("shock") or {}).get("events", []),
        "options": dict(method),
        "seed": run.spec["seed"],
        "budget": budget["amount"],
        "unit": budget["unit"],
        "space": run.spec["space"]["name"],
        "device": run.spec["device"],
        **run.units,
    }
    return row | (_outcome_columns(run.outcome, run.incumbents) if run.outcome else {"status": "not finished"})


def _outcome_columns(outcome: Outcome, incumbents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    final = outcome.final if outcome.status is not Status.FAILED else {}
    found = incumbents[-1]["step"] if incumbents and final else None  # older versions leave the step to the records
    return {
        "status": str(outcome.status),
        "message": outcome.message,
        "last_line": outcome.last_line,
        "spans_budget": outcome.spans_budget,
        "plain_step_seconds": _number((outcome.plain_step or {}).get("seconds")),
        "shared_by": outcome.shared_by,
        "invalid_because": "; ".join(outcome.invalid_because),
        "disturbed_because": "; ".join(outcome.disturbed_because),
        "resumed_with": ", ".join(outcome.changes),
        "data": outcome.environment.get("data"),
        **{name: _text(outcome.environment.get(name)) for name in ("node", "device_name", "driver")},
        "engine": _text(outcome.environment.get("engine")) or OLDEST_ENGINE,
        "numerics": _settings(outcome.environment.get("numerics")),
        "calibration_seconds": _number(calibration(outcome.conditions)),
        "steps": outcome.steps,
        "trials": outcome.trials,
        "random_starts": outcome.random_starts,
        "counted_seconds": outcome.counted_seconds,
        "wall_seconds": outcome.wall_seconds,
        **{name: _number(final.get(name)) for name in FINAL},
        "selected_step": _number(final.get("selected_step", found)),
        **{f"seconds_{name}": seconds for name, seconds in outcome.accounts.items()},
    }


def _settings(value: Any) -> str | None:
    return ", ".join(f"{name} {setting}" for name, setting in sorted(value.items())) if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
