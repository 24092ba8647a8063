"""Translates the task of an experiment's file into a part of run specs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.experiment.mistakes import found, named, rest, validate
from bench.experiment.plugins import Catalogue
from bench.experiment.spec import Spec
from bench.experiment.yaml_file import Key, YamlFile
from bench.protocol import LossHyperparameter
from bench.records.errors import DataError
from bench.records.names import checked_name
from bench.tasks.data_sets import DataSet, content_of, training_examples
from bench.tasks.entry import TaskEntry
from bench.tasks.options import TaskOptions


@dataclass(frozen=True)
class TaskRead:
    """A task as an experiment's file gives it."""

    name: str
    entry: TaskEntry
    options: TaskOptions
    data: DataSet
    examples: int
    """The size of the training split before the validation split is held out of it."""
    spec: Spec

    @property
    def held_out(self) -> int:
        """The number of examples for validation."""
        return self.options.held_out(self.examples)

    @property
    def trained(self) -> int:
        """The number of examples that are left for training."""
        return self.examples - self.held_out

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch."""
        return self.options.steps_per_epoch(self.trained)

    @property
    def tunable(self) -> tuple[LossHyperparameter, ...]:
        """The hyperparameters of the training loss that methods may tune."""
        return self.entry.tunable(self.options, self.data)

    @property
    def selection_period(self) -> int:
        """The number of steps between two validations that select."""
        return self.options.selection_period(self.trained)


def read_task(file: YamlFile, item: Any, catalogue: Catalogue, data_root: Path | None) -> TaskRead:
    """Returns a file's task.  Reads a user's own data for their sizes and hashes.  Raises `ConfigError`."""
    key: Key = ("task",)
    name, entry, origin = named(file, key, item, catalogue, "task")
    given = {**entry.defaults.model_dump(), **rest(item, "name")}
    options: TaskOptions = validate(file, key, type(entry.defaults), given)
    data_spec: Spec = {}
    if options.data is None:
        data = entry.data_for(options)
    else:
        called, data, data_origin = found(file, (*key, "data"), options.data, catalogue, "data set")
        data_spec = {"data": {"name": called, **({"origin": data_origin} if data_origin else {})}}
    if reason := entry.refusal(options, data):
        place = "data" if options.data else "drift" if options.drift else "name"
        raise file.error((*key, place), f"{name} cannot be done with {options.data or data.description!r}: {reason}")
    try:
        content, examples = content_of(data, data_root), training_examples(data, data_root)
    except DataError as error:
        place = "data" if options.data else "path" if "path" in type(options).model_fields else "name"
        raise file.error((*key, place), str(error)) from None
    units = entry.objective_for(options).units
    for what, unit in units.items():
        try:
            checked_name(unit)
        except ValueError as error:
            raise file.error((*key, "name"), f"{name}: {what} of its objective: {error} (given {unit!r:.50})") from None
    spec = {
        "name": name,
        **({"origin": origin} if origin else {}),
        **options.model_dump(mode="json", exclude={"data"} | ({"drift"} if options.drift is None else set())),
        **data_spec,
        **({"content": content} if content else {}),
        "units": units,
    }
    return TaskRead(name, entry, options, data, examples, spec)
