"""`oho-bench run`, in the process that does the work: from the files of experiments to their runs."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from bench.command.batches import Batches
from bench.command.crashed_runs import book_killed
from bench.command.handover import Journal
from bench.command.launcher import Nodes, launcher
from bench.command.planning import Planned, plan
from bench.experiment.expansion import Experiment, load_experiment
from bench.experiment.shipped import experiment_file
from bench.experiment.spec import Spec, data_set_of
from bench.experiment.yaml_file import ConfigError
from bench.process.share import machine_processors
from bench.process.standard_streams import say
from bench.records import Status, title_of
from bench.records.durations import amount_of
from bench.tasks.data_sets import load

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Order:
    """The options of a command line."""

    configs: Sequence[Path]
    _: KW_ONLY
    overrides: Sequence[str]
    seeds: Sequence[int] | None
    device: str
    out: Path
    data_root: Path | None
    again_invalid: bool
    figure: str | None = None
    launcher: str = "local"
    nodes: Nodes = field(default_factory=Nodes)


def work(order: Order, *, journal: Journal, dry_run: bool) -> int:
    """Makes the runs that are asked for and not done yet, and returns how many of all these runs have failed.

    Raises what `launcher`, `load_experiment`, `load` and `launch` raise.
    """
    begun, makes = journal.last("device"), launcher(order.launcher, order.nodes)
    device = makes.device(order.device, begun)
    experiments = _experiments(order, device)
    makes.begin(order.out)
    planned = plan(experiments, order.out, again_invalid=order.again_invalid, tried=journal.tried)
    if begun is None:
        todo = [item for item in planned if not item.is_done]
        batches = makes.batches(todo, order.data_root) if dry_run else Batches((), {})
        _print_plan(planned, batches, every_run=dry_run)
        for experiment in experiments:
            scarce = _scarce_processors(experiment.specs[0]) if order.launcher == "local" else ()
            for warning in (*experiment.warnings, *scarce):
                log.warning("experiment %s: %s", experiment.name, warning)
        journal.note("planned", _digest(planned))
        journal.note("device", device)
    elif journal.last("planned") != _digest(planned):
        raise ConfigError("what the command reads was changed while it ran; repeat the command")
    if dry_run:
        return 0
    planned = book_killed(planned, order.out, journal)
    tasks = (item.spec["task"] for item in planned if not item.is_done)
    for data_set in set(map(data_set_of, {id(task): task for task in tasks}.values())):  # an experiment's runs share one
        load(data_set, order.data_root)
    counts = makes.launch(experiments, planned, order.out, data_root=order.data_root, journal=journal)
    counts += Counter(item.outcome.status for item in planned if item.is_done and item.outcome)
    return counts[Status.FAILED]


def _experiments(order: Order, device: str) -> list[Experiment]:
    """Returns the experiments of the order's files, or only those that feed its figure."""
    files = [experiment_file(path) for path in order.configs]
    found = [
        load_experiment(
            path, overrides=order.overrides, seeds=order.seeds, device=device, data_root=order.data_root
        )
        for path in files
    ]
    if order.figure is None:
        return found
    chosen = [experiment for experiment in found if order.figure in experiment.figures]
    if not chosen:
        fed = ", ".join(sorted({name for experiment in found for name in experiment.figures})) or "none"
        raise ConfigError(f"--figure {order.figure}: no experiment here feeds it; the figures that are fed: {fed}")
    return chosen


def _scarce_processors(spec: Spec) -> Iterator[str]:
    """Yields a line for a run that has more threads than the machine has processors, which makes it slower, not faster."""
    if spec["device"] == "cpu" and (threads := spec["threads"] or 0) > (most := machine_processors()):
        yield f"threads: {threads} are more than the {most} processors of this machine, which makes runs slower"


def _digest(planned: Sequence[Planned]) -> str:
    return hashlib.sha256("\n".join(item.id for item in planned).encode()).hexdigest()


def _print_plan(planned: Sequence[Planned], batches: Batches, *, every_run: bool) -> None:
    todo = [item for item in planned if not item.is_done]
    totals: dict[str, float] = {}
    for item in todo:
        budget = item.spec["budget"]
        totals[budget["unit"]] = totals.get(budget["unit"], 0) + budget["amount"]
        if every_run:
            spec = item.spec
            print(
                f"{item.id}  {item.experiment.name}: {spec['task']['name']}, {title_of(spec)}, "
                f"seed {spec['seed']}, {amount_of(budget['amount'], budget['unit'])}, {spec['device']}, "
                f"{batches.places.get(item.id, 'alone')}"
            )
    total = " and ".join(amount_of(amount, unit) for unit, amount in totals.items()) or "nothing"
    runs = "run" if len(todo) == 1 else "runs"
    show = print if every_run else say
    show(f"{len(todo)} {runs} to do, {len(planned) - len(todo)} done already; budget to spend: {total}")
    for line in batches.describe():
        print(line)
