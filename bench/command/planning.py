"""Plans the runs of experiments, writes the list of them, and reports mistakes before the first run."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.command.handover import NEVER, Journal
from bench.experiment.expansion import Experiment, Spec
from bench.experiment.spec import method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Task
from bench.records import PROTOCOL, Manifest, Outcome, is_damaged, names_in, read_manifests, read_outcome, write_manifest
from bench.records.labels import differ_in_labels_alone
from bench.records.plugins import store
from bench.records.schema import TIMED

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Planned:
    """A run that an experiment asks for, with its last outcome.

    `is_done` says whether its folder holds a result, `starts_over` that the run is void and has to begin again.
    """

    experiment: Experiment
    spec: Spec
    id: str
    outcome: Outcome | None
    is_done: bool
    starts_over: bool = False

    @property
    def has_its_own_seconds(self) -> bool:
        """Whether the run's seconds are its budget or, as `population: off` says, wanted."""
        return self.spec["budget"]["unit"] in TIMED or self.experiment.population == "off"

    @property
    def since(self) -> str:
        """The time of that outcome, for the journal."""
        return self.outcome.finished if self.outcome else NEVER


def plan(experiments: Sequence[Experiment], root: Path, *, again_invalid: bool = False, tried: Collection[str] = ()
         ) -> list[Planned]:  # fmt: skip
    """Returns every run once, in order; a run that two experiments share belongs to the first.

    With `again_invalid`, a run that is void counts as not done and, if it was stopped, starts over.  A run that this
    command has `tried` counts as done, however it ended.
    """
    planned: dict[str, Planned] = {}
    begun = names_in(root)
    for experiment in experiments:
        for spec, identity in zip(experiment.specs, experiment.ids, strict=True):
            if identity not in planned:
                outcome = read_outcome(root / identity) if identity in begun else None
                _check_protocol(outcome, root)
                done = outcome is not None and outcome.status.is_result and (outcome.valid or not again_invalid)
                if done and identity not in tried and is_damaged(root / identity, outcome):
                    log.warning("%s: files of this ended run are missing or truncated; it runs again", root / identity)
                    done = False
                void = again_invalid and outcome is not None and not outcome.valid
                planned[identity] = Planned(
                    experiment, spec, identity, outcome, done or identity in tried, starts_over=void
                )  # fmt: skip
    return list(planned.values())


def _check_protocol(outcome: Outcome | None, root: Path) -> None:
    if outcome is not None and outcome.protocol != PROTOCOL:
        raise ConfigError(
            f"--out {root}: holds runs of protocol {outcome.protocol}, and this version measures by protocol {PROTOCOL};"
            " choose another folder"
        )


def write_plan(experiment: Experiment, root: Path) -> None:
    """Writes an experiment's plan.

    An older plan of the same name is extended if only its seeds and labels differ; otherwise it is replaced, with a
    warning.
    """
    runs, resolved = experiment.ids, dict(experiment.resolved)
    older = next((plan for plan in read_manifests(root) if plan.experiment == experiment.name), None)
    if older is not None:
        if differ_in_labels_alone({**older.config, "seeds": resolved["seeds"]}, resolved):
            runs = [*older.runs, *runs]
            resolved["seeds"] = sorted({*older.config["seeds"], *resolved["seeds"]})
        elif left := set(older.runs) - set(runs):
            log.warning(
                "%s: %d of the older plan's runs of experiment %r stay in the folder but are in no figure any more; another"
                " `experiment:` name or --out keeps both", root, len(left), experiment.name,
            )  # fmt: skip
    for origin in origins(resolved):
        store(root, origin)
    tracking = experiment.tracking
    tracked = tracking.project, tracking.trial_runs, tracking.mode if "mode" in tracking.model_fields_set else None
    write_manifest(root, Manifest(experiment.name, experiment.figures, resolved, tuple(dict.fromkeys(runs)), *tracked))


def origins(part: Any) -> Iterator[dict[str, str]]:
    """Yields the origins of the plug-ins of a resolved experiment or spec."""
    if isinstance(part, Mapping):
        if "hash" in part and "place" in part:
            yield dict(part)
        for item in part.values():
            yield from origins(item)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from origins(item)


def _distinct(todo: Sequence[Planned]) -> Iterator[Planned]:
    """Yields the first run of each task and method of an experiment, whose specs share these parts."""
    seen: set[tuple[int, int]] = set()
    for item in todo:
        parts = id(item.spec["task"]), id(item.spec["method"])
        if parts not in seen:
            seen.add(parts)
            yield item


def check_methods(todo: Sequence[Planned], data_root: Path | None, journal: Journal) -> None:
    """Asks each method that has a `check`, before anything runs, whether it can train the network of its task.

    Exceptions other than ValueError are left to the runs, which report them.
    """
    tasks: dict[str, Task] = {}
    seen: set[str] = set()
    for item in _distinct(todo):
        spec = item.spec
        key = json.dumps([spec["task"], spec["method"]], sort_keys=True)
        method: Any = method_of(spec)
        if key in seen or not hasattr(method, "check"):
            continue
        seen.add(key)
        name = json.dumps(spec["task"], sort_keys=True)
        if name not in tasks:
            tasks[name] = task_of(spec, torch.device("cpu"), data_root)[0]
        try:
            with journal.within(item.id, item.since):  # what does not fit into memory here would not fit in the run
                method.check(tasks[name])
        except ValueError as error:
            raise ConfigError(f"method {spec['method']['label']!r} on {spec['task']['name']}: {error}") from None
        except Exception:
            continue  # not a user's mistake, such as a network too large for the memory: the runs report it
