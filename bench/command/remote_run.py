"""Makes a run in a worker on a node: checks that the node has what the run needs, then works as a local command does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.command.one_run import Assignment, Turn, make, turn
from bench.command.planning import origins
from bench.command.scheduling import End
from bench.command.store import Store, scratch
from bench.experiment.spec import data_set_of, method_of
from bench.process.signals import Interrupted, Stopper
from bench.records import Outcome, StorageError
from bench.records.errors import DataError
from bench.records.plugins import PluginError, load_file, stored
from bench.run.loop import Progress
from bench.tasks.data_sets import data_root

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Result:
    """What became of a run on a node: its outcome if it was made, and the warnings that were logged meanwhile.

    `signal` is what stopped it.
    """

    end: End
    reason: str = ""
    outcome: Outcome | None = None
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


def make_remotely(order: Mapping[str, Any]) -> Result:
    """Makes the run of an order: the values of an `Assignment`, the results folder and the places of the data.

    Signals in the order's `signals` stop it as SIGTERM does.
    """
    given = Assignment(**order["given"])
    stopper = Stopper()
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


def _made(order: Mapping[str, Any], given: Assignment, stopper: Stopper, said: list[str]) -> Result:
    data = _data_root(order)
    with _workplace(order, given.id, stopper) as (root, progress):
        if not (root / "experiments" / f"{given.experiment}.json").exists():
            reason = f"does not see the results folder {root}; mount it there at the same path"
            return Result(End.NODE_REFUSED, reason)
        _check(given.spec, root, data)
        with turn(root, root.stat(), given.id, given.before) as whose:
            if whose is Turn.TAKEN:
                return Result(End.TAKEN)
            outcome = None
            if whose is Turn.OURS:
                outcome = make(given, root, data_root=data, stopper=stopper, progress=progress)
    return Result(End.MADE, outcome=outcome, said=tuple(said))


@contextmanager
def _workplace(order: Mapping[str, Any], run: str, stopper: Stopper) -> Iterator[tuple[Path, Progress]]:
    """Yields the folder in which the run is made and what is called as it proceeds."""
    if order["storage"] is None:
        yield Path(order["root"]), lambda fraction, state: None
    else:
        with scratch(order["storage"], run, stopper) as place:
            yield place.root, place.progress


def _data_root(order: Mapping[str, Any]) -> Path:
    """Returns the data root that the command names, or else this node's own, or else the driver's."""
    if order["given_data_root"] is not None:
        return Path(order["given_data_root"])
    return data_root() if os.environ.get("OHO_DATA") else Path(order["data_root"])


def _check(spec: dict[str, Any], root: Path, data: Path) -> None:
    """Raises `DataError` or `PluginError` if this node lacks what the run needs.  Nothing is downloaded."""
    for origin in origins(spec):
        if "file" in origin:
            load_file(stored(root, origin), expected=origin["hash"])
    method_of(spec, root)
    data_set = data_set_of(spec["task"], root)
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
