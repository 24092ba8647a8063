"""Labels belong to an experiment's plan, not to its runs.

A run's id leaves labels and families out, so that a label that is changed later is not a new run, and two experiments that
share a run may call its method differently.  What reports show is therefore the plan's, in `experiments/NAME.json`; the
labels in `spec.json` are those that the run was first made with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.identity import run_id

LABELLED = {"methods": "method", "shocks": "shock"}
"""What has a label: its key in a plan, and in a run's spec."""


class PlanLabels:
    """The labels of one plan."""

    def __init__(self, config: Mapping[str, Any]):
        self._parts: dict[str, Sequence[Any]] = {own: config.get(key) or () for key, own in LABELLED.items()}
        self._by_id = {own: {run_id(part): part for part in parts} for own, parts in self._parts.items()}

    def given_to(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a run's spec with the labels and families of the plan; what is not in the plan keeps its own."""
        changed = {
            own: self._by_id[own].get(run_id(spec[own]), spec[own])
            for own, parts in self._parts.items()
            if spec.get(own) and spec[own] not in parts  # which is quicker than a hash
        }
        return {**spec, **changed} if changed else spec


def differ_in_labels_alone(older: Mapping[str, Any], newer: Mapping[str, Any]) -> bool:
    """Returns whether two plans have the same methods, shocks and settings, whatever the labels."""
    return _without_labels(older) == _without_labels(newer)


def _without_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **{key: [run_id(part) for part in config.get(key) or ()] for key in LABELLED}}
