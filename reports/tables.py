"""Results folder -> tidy tables.  Nothing is drawn or estimated here."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import KINDS, Manifest, Outcome, ReportError, Run, Status, experiments_in, read_run, title_of


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


class _Rows:
    """Records of one kind as tuples, by the names they have: with a dict a row, a large folder needs twice the memory."""

    def __init__(self, kind: str) -> None:
        self._least = KINDS[kind]
        self._rows: defaultdict[tuple[tuple[str, ...], ...], list[tuple]] = defaultdict(list)
        self._count = itertools.count()

    def add(self, run: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends the records of a run."""
        for record in records:
            own = dict(record)
            hyper, scalars = own.pop("hyper", {}), own.pop("scalars", {})
            single = [item[0] if isinstance(item, list) and len(item) == 1 else _known(item) for item in hyper.values()]
            names = tuple(own), tuple(hyper), tuple(scalars)
            self._rows[names].append((next(self._count), run, *own.values(), *single, *scalars.values()))

    def table(self) -> pd.DataFrame:
        """A row for each record, in the order they were added; NaN where a record lacks a name that others have."""
        tables = []
        for (own, hyper, scalars), rows in self._rows.items():
            names = [*own, *(f"hyper_{name}" for name in hyper), *(f"scalar_{name}" for name in scalars)]
            table = pd.DataFrame(rows, columns=["place", "run", *names])
            if not table.columns.is_unique:  # a damaged record may have any names
                table = table.loc[:, ~table.columns.duplicated()]
            tables.append(table.set_index("place"))
        if not tables:
            return pd.DataFrame(columns=["run", *self._least])
        return pd.concat(tables).sort_index(ignore_index=True).infer_objects()


def _known(value: Any) -> Any:
    """With NaN for null in a list of several."""
    if not isinstance(value, list) or None not in value:
        return value
    return [float("nan") if number is None else number for number in value]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Nothing that is read has cycles, and looking for them takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_collector_paused()
def read_tables(root: Path) -> Tables:
    """Reads a results folder.  Raises `ReportError` where it holds no run, or runs of two protocol versions."""
    manifests = tuple(experiments_in(root))
    read: dict[str, dict[str, Any]] = {}
    outcomes: list[Outcome] = []
    evaluations, incumbents, trials = map(_Rows, ("evaluation", "incumbent", "trial"))
    rows = []
    for manifest in manifests:
        for identity in manifest.runs:
            if identity not in read and (root / identity / "spec.json").exists():
                run = read_run(root / identity)
                read[identity] = _run_row(run)
                outcomes += [run.outcome] if run.outcome else []
                if run.outcome and run.outcome.status.is_result:
                    evaluations.add(identity, run.evaluations)
                    incumbents.add(identity, run.incumbents)
                    trials.add(identity, run.trials)
            rows.append({"experiment": manifest.experiment, "run": identity, **read.get(identity, {"status": "missing"})})
    if not outcomes:
        raise ReportError(f"{root}: no run has ended yet; there is nothing to report")
    protocols = {outcome.protocol for outcome in outcomes}
    if len(protocols) > 1:
        raise ReportError(f"{root}: runs of protocols {sorted(protocols)} cannot be compared; use one folder for each")
    return Tables(
        pd.DataFrame(rows), evaluations.table(), incumbents.table(), trials.table(), manifests,
        tuple(outcome.environment for outcome in outcomes), protocols.pop(),
    )  # fmt: skip


def _run_row(run: Run) -> dict[str, Any]:
    method, budget = run.spec["method"], run.spec["budget"]
    over = method.get("over")
    row = {
        "task": run.spec["task"]["name"],
        "method": method["name"],
        "label": title_of(run.spec),
        "method_label": method["label"],
        "shock": run.spec.get("shock", {}).get("label", ""),
        "events": run.spec.get("shock", {}).get("events", []),
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
    optimizer = (trained.get("optimizer") or {"name": "sgd"})["name"]
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


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
