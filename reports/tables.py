"""Results folder -> tidy tables.  Nothing is drawn or estimated here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import Manifest, Outcome, Run, Status, experiments_in, read_run
from reports.errors import ReportError


@dataclass(frozen=True)
class Tables:
    """All of a results folder.

    runs: a row for each planned run of each experiment, with `status` ("missing" and "not finished" included).
    evaluations: a row for each evaluation record, keyed by `run`; times in counted seconds, losses in nats per example;
        `hyper_*` one value or a list with one a set, `scalar_*` what the method finds worth plotting.
    incumbents: a row for each model selected, keyed by `run`, with when and where it was found and its losses.
    trials: a row for each trial of a search, keyed by `run`.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    incumbents: pd.DataFrame
    trials: pd.DataFrame
    manifests: tuple[Manifest, ...]
    environments: tuple[Mapping[str, Any], ...]
    protocol: int

    def of_figure(self, figure: str) -> pd.DataFrame:
        """The runs of the experiments that feed a figure; empty where none does."""
        names = [manifest.experiment for manifest in self.manifests if figure in manifest.figures]
        return self.runs[self.runs["experiment"].isin(names)]


def read_tables(root: Path) -> Tables:
    """Reads a results folder.  Raises `ReportError` where it holds no run, or runs of two protocol versions."""
    manifests = tuple(experiments_in(root))
    runs: dict[str, Run] = {}
    rows = []
    for manifest in manifests:
        for identity in manifest.runs:
            if identity not in runs and (root / identity / "spec.json").exists():
                runs[identity] = read_run(root / identity)
            rows.append({"experiment": manifest.experiment, "run": identity, **_run_row(runs.get(identity))})
    ended = [run for run in runs.values() if run.outcome]
    if not ended:
        raise ReportError(f"{root}: no run has ended yet; there is nothing to report")
    protocols = {run.outcome.protocol for run in ended if run.outcome}
    if len(protocols) > 1:
        raise ReportError(f"{root}: runs of protocols {sorted(protocols)} cannot be compared; use one folder for each")
    measured = [run for run in ended if run.outcome and run.outcome.status.is_result]
    return Tables(
        pd.DataFrame(rows),
        pd.DataFrame([_flat(run.id, record) for run in measured for record in run.evaluations]),
        pd.DataFrame([_flat(run.id, record) for run in measured for record in run.incumbents]),
        pd.DataFrame([_flat(run.id, record) for run in measured for record in run.trials]),
        manifests,
        tuple(run.outcome.environment for run in ended if run.outcome),
        protocols.pop(),
    )


def _run_row(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"status": "missing"}
    method, budget = run.spec["method"], run.spec["budget"]
    over = method.get("over")
    row = {
        "task": run.spec["task"]["name"],
        "method": method["name"],
        "label": method["label"],
        "over": over["name"] if over else None,
        "over_label": over["label"] if over else None,
        "options": dict(method),
        "is_papers": _is_papers(method),
        "seed": run.spec["seed"],
        "budget": budget["amount"],
        "unit": budget["unit"],
        "space": run.spec["space"]["name"],
        "device": run.spec["device"],
    }
    return row | (_outcome_columns(run.outcome) if run.outcome else {"status": "not finished"})


def _is_papers(method: Mapping[str, Any]) -> bool:
    """Whether the paper has the method: SGD, or Adam as such, and no pruner."""
    trained = method.get("over") or method
    optimizer = trained.get("optimizer", {"name": "sgd"})["name"]
    return (optimizer == "sgd" or trained["name"] == "adam") and method.get("pruner", "none") == "none"


def _outcome_columns(outcome: Outcome) -> dict[str, Any]:
    final = outcome.final if outcome.status is not Status.FAILED else {}
    names = ("test_loss", "test_error", "incumbent_validation_loss", "incumbent_test_loss", "incumbent_test_error")
    return {
        "status": str(outcome.status),
        "message": outcome.message,
        "spans_budget": outcome.spans_budget,
        "invalid_because": "; ".join(outcome.invalid_because),
        "data": outcome.environment.get("data"),
        "steps": outcome.steps,
        "trials": outcome.trials,
        "counted_seconds": outcome.counted_seconds,
        "wall_seconds": outcome.wall_seconds,
        **{name: _number(final.get(name)) for name in names},
        **{f"seconds_{name}": seconds for name, seconds in outcome.accounts.items()},
    }


def _flat(run: str, record: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
    row["run"] = run
    for name, value in record.get("hyper", {}).items():
        row[f"hyper_{name}"] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return row | {f"scalar_{name}": value for name, value in record.get("scalars", {}).items()}


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
