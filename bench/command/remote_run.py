"""Makes a run, or a batch of runs, in a worker on a node.

It checks that the node has what they need, then works as a local command does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.command.one_run import Assignment, Turn, make, opener, turn
from bench.command.planning import Planned, origins
from bench.command.scheduling import End
from bench.command.store import Store, scratch
from bench.experiment.spec import data_set_of, method_of, packages_of
from bench.process.signals import Interrupted, Stopper
from bench.records import Outcome, StorageError
from bench.records.errors import DataError
from bench.records.plugins import PluginError, load_file, stored
from bench.run.loop import Progress
from bench.run.population import run_together
from bench.tasks.data_sets import data_root

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Result:
    """What became of runs on a node: the outcomes of those that were made, and the warnings that were logged meanwhile.

    `signal` is what stopped them.
    """

    end: End
    reason: str = ""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    signal: int | None = None


def places(root: Path, given: Path | None, store: Store | None) -> dict[str, str | None]:
    """Returns the part of an order that is the same for all runs of a command.

    `given` is the data root that it names.
    """
    named = None if given is None else str(given.absolute())
    return {
        "root": str(root.absolute()), "given_data_root": named, "data_root": str(data_root(given).absolute()),
        "storage": store.url if store else None,
    }  # fmt: skip


def order_of(runs: Iterable[Planned], places: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a process must be given to make a run, or several as a batch."""
    return {**places, "given": [dict(vars(Assignment.of(item))) for item in runs]}


def make_remotely(order: Mapping[str, Any], stopper: Stopper | None = None) -> Result:
    """Makes the runs of an order: the values of an `Assignment` each, the results folder and the places of the data.

    Several are made as a batch.  Signals in the order's `signals` stop them as SIGTERM does.
    """
    given = [Assignment(**values) for values in order["given"]]
    stopper = stopper or Stopper()
    with _heard() as said:
        try:
            with stopper.listening(*order.get("signals", ())):
                return _made(order, given, stopper, said)
        except (DataError, PluginError) as error:
            return Result(End.REFUSED, str(error))
        except StorageError as error:
            return Result(End.NODE_REFUSED, f"cannot store its work: {error}", said=tuple(said))
        except Interrupted as stop:
            return Result(End.STOPPED, said=tuple(said), signal=stop.number)


def _made(order: Mapping[str, Any], given: Sequence[Assignment], stopper: Stopper, said: list[str]) -> Result:
    data = _data_root(order)
    with _workplace(order, [each.id for each in given], stopper) as (root, progress):
        if not (root / "experiments" / f"{given[0].experiment}.json").exists():
            reason = f"does not see the results folder {root}; mount it there at the same path"
            return Result(End.NODE_REFUSED, reason)
        _check(given, root, data)
        with ExitStack() as claims:
            was = root.stat()
            turns = [claims.enter_context(turn(root, was, each.id, each.before)) for each in given]
            if turns == [Turn.TAKEN]:
                return Result(End.TAKEN)
            ours = [each for each, whose in zip(given, turns, strict=True) if whose is Turn.OURS]
            outcomes = _outcomes(ours, len(given) > 1, root, data_root=data, stopper=stopper, progress=progress)
    return Result(End.MADE, outcomes=outcomes, said=tuple(said))


def _outcomes(given: Sequence[Assignment], is_batch: bool, root: Path, *, data_root: Path, stopper: Stopper,
              progress: Progress) -> dict[str, Outcome]:  # fmt: skip
    """Makes runs that this process has claimed; of a batch, it leaves those that are to be made alone."""
    if not is_batch:
        return {each.id: make(each, root, data_root=data_root, stopper=stopper, progress=progress) for each in given}
    if len(given) < 2:
        return {}
    outcomes = run_together(
        [each.spec for each in given], root, data_root=data_root, open_sink=opener(given[0]), progress=progress,
        stopper=stopper,
    )  # fmt: skip
    return {each.id: outcome for each, outcome in zip(given, outcomes, strict=True) if outcome is not None}


@contextmanager
def _workplace(order: Mapping[str, Any], runs: Sequence[str], stopper: Stopper) -> Iterator[tuple[Path, Progress]]:
    """Yields the folder in which the runs are made and what is called as they proceed."""
    if order["storage"] is None:
        yield Path(order["root"]), lambda fraction, state: None
    else:
        with scratch(order["storage"], runs, stopper) as place:
            yield place.root, place.progress


def _data_root(order: Mapping[str, Any]) -> Path:
    """Returns the data root that the command names, or else this node's own, or else the driver's."""
    if order["given_data_root"] is not None:
        return Path(order["given_data_root"])
    return data_root() if os.environ.get("OHO_DATA") else Path(order["data_root"])


def _check(given: Sequence[Assignment], root: Path, data: Path) -> None:
    """Raises `DataError` or `PluginError` if this node lacks what the runs need.  Nothing is downloaded."""
    for spec in [each.spec for each in given]:
        for origin in origins(spec):
            if "file" in origin:
                load_file(stored(root, origin), expected=origin["hash"])
        for package in packages_of(spec, root):
            if package.missing:
                raise DataError(package.missing)
        method_of(spec, root)
    data_set = data_set_of(given[0].spec["task"], root)
    if not data_set.present(data):
        raise DataError(f"has no {data_set.description} in {data}; fetch it there or set OHO_DATA")


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Yields a list to which the block's warnings are added."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
