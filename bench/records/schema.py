"""The content that reports need in the files of a results folder.  `bench.records` checks it when reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from bench.records.errors import RecordError
from bench.records.json_files import read_object

MOMENT = ("used", "step", "epoch", "trial", "counted_seconds", "wall_seconds")
UNITS = ("seconds", "plain_steps", "steps", "epochs")
"""What a budget is measured in."""
TIMED = ("seconds", "plain_steps")
"""Units of time: a disturbed clock voids such a run."""
KINDS = {
    "evaluation": (
        *MOMENT, "train_loss", "validation_loss", "test_loss", "test_error", "incumbent_validation_loss",
        "incumbent_test_loss", "incumbent_test_error",
    ),
    "incumbent": (*MOMENT, "validation_loss", "test_loss", "test_error"),
    "trial": (*MOMENT, "validation_loss", "steps"),
    "shock": MOMENT,
}  # fmt: skip
"""Numbers that a record of each kind must have; only those of MOMENT may not be null."""
FOR_FIGURES = ("label", "family")
"""Keys of a spec's task or method that only figures use: they are no part of what a run's id is a hash of."""
RESERVED = ("name", *FOR_FIGURES, "origin", "content", "units")
"""Keys of a spec's task or method that are not its options, and that no option can be called.

A task's `content` is the hash of a user's data, `units` what is measured.
"""
LARGEST_COUNT, LARGEST_NUMBER = 2**53, 1e300
FIRST_YEAR = 1970
_NUMBERS_OF = {kind: itemgetter(*names) for kind, names in KINDS.items()}
_NUMBER_TYPES = frozenset({int, float, type(None)})
_LISTS = frozenset({list})


class Status(StrEnum):
    """How a run ended."""

    BUDGET_REACHED = "budget_reached"
    DIVERGED = "diverged"
    """The training loss became non-finite: a result, not an error."""
    FAILED = "failed"
    """The run raised an exception, whose traceback is the outcome's message."""
    INTERRUPTED = "interrupted"
    """The run was stopped from outside; the next `run` continues it."""

    @property
    def is_result(self) -> bool:
        """Whether the run counts as measured, so that it is never run again."""
        return self in (Status.BUDGET_REACHED, Status.DIVERGED)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_COUNT


def _is_number(value: Any) -> bool:
    largest = LARGEST_COUNT if type(value) is int else LARGEST_NUMBER
    return type(value) in (int, float) and -largest <= value <= largest


def _is_amount(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_plan(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    seeds, origins = value.get("seeds", []), value.get("figures") or {}
    methods, shocks = value.get("methods") or [], value.get("shocks") or []
    return (
        isinstance(seeds, list) and all(map(_is_count, seeds))
        and isinstance(methods, list) and all(map(_is_method, methods))
        and isinstance(shocks, list) and all(map(_is_shock, shocks))
        and isinstance(origins, dict) and all(map(_is_origin, origins.values()))
    )  # fmt: skip


def _is_origin(value: Any) -> bool:
    """Returns whether a value says where a plug-in came from: a file, by its name and hash, or a module."""
    if not (isinstance(value, dict) and all(map(_is_text, value.values())) and "place" in value):
        return False
    return _is_name(value.get("hash")) and (_is_name(value["file"]) if "file" in value else "module" in value)


def _is_name(value: Any) -> bool:
    """Returns whether a value may be the name of a file within a folder, and no way out of it."""
    return _is_text(value) and value not in ("", ".", "..") and "/" not in value and "\\" not in value


def _are_runs(value: Any) -> bool:
    return _are_texts(value) and all(identity.isalnum() for identity in value)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("name"))


def _is_entry(value: Any) -> bool:
    """Returns whether a value names an entry and, if it is a plug-in's, says where that came from."""
    return _is_named(value) and (value.get("origin") is None or _is_origin(value["origin"]))


def _is_task(value: Any) -> bool:
    if not (_is_entry(value) and ("data" not in value or _is_entry(value["data"]))):
        return False
    units, names = value.get("units", {}), ("loss", "loss_unit", "metric", "metric_unit")
    return units == {} or (isinstance(units, dict) and all(_is_text(units.get(name)) for name in names))


def _is_method(value: Any) -> bool:
    if not (_is_entry(value) and _is_text(value.get("label"))):
        return False
    if not (value.get("family") is None or _is_text(value["family"])):
        return False
    if not (value.get("over") is None or _is_method(value["over"])):
        return False
    # A plug-in's options mean what its author likes, whatever their names mean in our methods.
    return value.get("origin") is not None or all(option_fits(name, option) for name, option in value.items())


def option_fits(name: str, value: Any) -> bool:
    """Returns whether an option's value is of the type that figures expect of the name; None is of any type."""
    if value is None:
        return True
    if name in NUMBER_OPTIONS:
        return _is_number(value)
    if name in TEXT_OPTIONS:
        return _is_text(value)
    return name != "optimizer" or _is_named(value)


def _is_event(value: Any) -> bool:
    return (
        isinstance(value, dict) and _is_amount(value.get("epoch"))
        and all(_are_numbers(item) if name in ("set", "scale") else _is_number(item) for name, item in value.items())
    )  # fmt: skip


def _is_shock(value: Any) -> bool:
    if value is None:
        return True
    events = value.get("events") if isinstance(value, dict) else None
    return isinstance(events, list) and len(events) > 0 and all(map(_is_event, events)) and _is_text(value.get("label"))


def _is_budget(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.get("unit") in UNITS
        and _is_number(value.get("amount")) and value["amount"] > 0
    )  # fmt: skip


def _is_plain_step(value: Any) -> bool:
    return value is None or (_are_numbers(value) and value.get("seconds", 0) > 0)


def _is_final(value: Any) -> bool:
    names = (*KINDS["evaluation"], "selected_step")
    return isinstance(value, dict) and all(value.get(name) is None or _is_number(value[name]) for name in names)


def _is_environment(value: Any) -> bool:
    """Returns whether the environment has a date, which reports show for the newest run."""
    try:
        return isinstance(value, dict) and datetime.fromisoformat(value["finished"]).year > FIRST_YEAR
    except (KeyError, TypeError, ValueError):
        return False


def _are_processes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(process, dict) and isinstance(process.get("conditions"), dict)
        and _is_environment(process.get("environment")) and _are_texts(process.get("disturbed_because"))
        for process in value
    )  # fmt: skip


Shape = Mapping[str, tuple[Callable[[Any], bool], str]]
NUMBER_OPTIONS = ("lr", "meta_rate", "members", "reset_every", "validation_batch_size", "epochs")
TEXT_OPTIONS = ("pruner", "influence", "order", "source")
"""Options of methods by which figures tell runs apart."""
MANIFEST: Shape = {
    "experiment": (_is_text, "a string"), "figures": (_are_texts, "a list of names"),
    "config": (_is_plan, "a mapping with seeds, methods and shocks"), "runs": (_are_runs, "a list of run ids"),
    "project": (lambda value: value is None or _is_text(value), "a string"),
    "trial_runs": (lambda value: value is None or _is_count(value), "a whole number of at least 0"),
    "mode": (lambda value: value is None or _is_text(value), "a string"),
}  # fmt: skip
SPEC: Shape = {
    "task": (_is_task, "a mapping with a `name`, the `origin` of a plug-in, and `units` with names and units"),
    "method": (_is_method, "a `name`, a `label`, the `origin` of a plug-in, and options"),
    "seed": (_is_count, "a whole number of at least 0"), "budget": (_is_budget, "a `unit` and an `amount` above 0"),
    "space": (_is_named, "a mapping with a `name`"), "device": (_is_text, "a string"),
    "shock": (_is_shock, "a `label` and `events`"),
}  # fmt: skip
OUTCOME: Shape = {
    "status": (lambda value: value in list(Status), f"one of {', '.join(Status)}"),
    "message": (lambda value: isinstance(value, str), "a string"), "steps": (_is_count, "a whole number of at least 0"),
    "trials": (_is_count, "a whole number of at least 0"), "counted_seconds": (_is_amount, "a number of at least 0"),
    "wall_seconds": (_is_amount, "a number of at least 0"), "accounts": (_are_numbers, "numbers by name"),
    "final": (_is_final, "numbers by name"), "environment": (_is_environment, "a mapping with `finished`, a date and time"),
    "conditions": (lambda value: isinstance(value, dict), "a mapping"),
    "invalid_because": (_are_texts, "a list of strings"), "disturbed_because": (_are_texts, "a list of strings"),
    "earlier": (_are_processes, "a list of mappings with `environment`, `conditions` and `disturbed_because`"),
    "spans_budget": (lambda value: isinstance(value, bool), "true or false"), "protocol": (_is_count, "a whole number"),
    "shared_by": (lambda value: _is_count(value) and value > 0, "a whole number of at least 1"),
    "random_starts": (_is_count, "a whole number of at least 0"),
    "record_bytes": (lambda value: value is None or _is_count(value), "a whole number of at least 0, or null"),
    "plain_step": (_is_plain_step, "numbers by name, of which `seconds` is above 0, or null"),
}  # fmt: skip
"""The content that reports need in the files of a results folder: by key, a check and what it expects."""


def misfit(content: Mapping[str, Any], shape: Shape) -> str | None:
    """Returns what is wrong with a file's content, or None if nothing is."""
    for key, (fits, expected) in shape.items():
        if not fits(content.get(key)):
            return f"{key}: {expected} is expected (given {content.get(key)!r:.100})"
    return None


def problem_of(record: Any) -> str | None:
    """Returns what is wrong with a record, or None if nothing is."""
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return f"kind must be one of {', '.join(KINDS)}"
    try:
        numbers = _NUMBERS_OF[kind](record)
        if kind == "evaluation":
            sets = record.get("hyper", {}).values()
            if not _LISTS.issuperset(map(type, sets)):
                return "'hyper' must hold lists of numbers; the run's records are damaged"
            numbers = (*numbers, *record.get("scalars", {}).values(), *chain.from_iterable(sets))
        elif kind == "trial":
            numbers = (*numbers, *record.get("hyper", {}).values())
        if (
            None not in numbers[: len(MOMENT)]
            and _NUMBER_TYPES.issuperset(map(type, numbers))
            # Filtering drops null and zeros; most records have only small numbers, for which the sum suffices.
            and (abs(sum(filter(None, numbers))) < LARGEST_COUNT or all(map(_is_number, filter(None, numbers))))
        ):
            return None
    except (KeyError, AttributeError, TypeError):
        pass
    for name in KINDS[kind]:
        if not (_is_number(record.get(name)) or (name in record and record[name] is None and name not in MOMENT)):
            return f"{name!r} must be a number{'' if name in MOMENT else ' or null'}; the run's records are damaged"
    return "'hyper' and 'scalars' must hold numbers or null; the run's records are damaged"


def read_checked(path: Path, shape: Shape, remedy: str) -> dict[str, Any]:
    """Returns the JSON object in a file of that shape.  Raises `RecordError`, with the remedy at its end."""
    content = read_object(path, remedy)
    check(path, content, shape, remedy)
    return content


def check(path: Path, content: Mapping[str, Any], shape: Shape, remedy: str) -> None:
    """Raises `RecordError` where the content of a file has not that shape."""
    if problem := misfit(content, shape):
        raise RecordError(f"{path}:1:1: {problem}; {remedy}")
