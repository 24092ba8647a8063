"""Writes the outcome of a run whose process died: see `bench.command.supervisor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.command.handover import Journal
from bench.command.planning import Planned
from bench.command.supervisor import death_by
from bench.experiment.spec import Spec, set_threads
from bench.process.run_lock import claimed
from bench.records import Outcome, Status, read_outcome, read_run, write_outcome
from bench.records.files import storing
from bench.records.json_files import write_json
from bench.run.environment import describe_environment


def book_killed(planned: Sequence[Planned], root: Path, journal: Journal) -> list[Planned]:
    """Records as failed each run whose process died of a signal, and returns the planned runs with these outcomes.

    The run's records and checkpoint stay, so it can continue.
    """
    unsettled = journal.unsettled
    found = []
    for item in planned:
        if item.id in unsettled:
            why, since = death_by(unsettled[item.id]), journal.since(item.id)
            item = replace(item, outcome=book(item.spec, root / item.id, why, since))
            journal.note("settled", item.id)
        found.append(item)
    return found


def book(spec: Spec, folder: Path, why: str, since: str) -> Outcome | None:
    """Records as failed a run whose process died, unless another runner has it or has ended it after `since`.

    Returns the run's outcome.
    """
    with storing(folder), claimed(folder) as is_ours:
        outcome = read_outcome(folder)
        if not is_ours or (outcome is not None and outcome.finished != since):  # another runner has taken it over
            return outcome
        write_json(folder / "spec.json", spec)
        run = read_run(folder)
        last = {"step": 0, "counted_seconds": 0.0, "wall_seconds": 0.0, **(run.records[-1] if run.records else {})}
        environment = describe_environment(torch.device(spec["device"]), set_threads(spec), data=None)
        outcome = Outcome(
            Status.FAILED, why, last["step"], len(run.trials), last["counted_seconds"],
            last["wall_seconds"], accounts={}, final={}, environment=environment,
        )  # fmt: skip
        write_outcome(folder, outcome)
        return outcome
