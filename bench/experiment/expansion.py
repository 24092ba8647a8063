"""Turns YAML into an `Experiment` and its run specs, and refuses unknown keys, wrong types and unknown names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from bench.experiment.engines import engine_of
from bench.experiment.first_selection import too_short
from bench.experiment.kicks import check_shock
from bench.experiment.methods import MethodReader, refuse_twins
from bench.experiment.mistakes import found, validate
from bench.experiment.plugins import Catalogue, Found
from bench.experiment.schema import Budget, ExperimentFields, Population, Tracking
from bench.experiment.size_checks import classless_events, late_events, misfits, unfit_periods, untunable
from bench.experiment.spaces import check_names, read_space
from bench.experiment.spec import Spec
from bench.experiment.tasks import TaskRead, read_task
from bench.experiment.yaml_file import YamlFile, override, read_yaml
from bench.protocol import Space
from bench.protocol.engine import EAGER
from bench.records import PROTOCOL, planned_specs, run_ids
from bench.records.plugins import PluginError

MOST_RUNS = 100_000


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: `specs` hold all that affects a run's result, in the order they run.

    `warnings` are lines about settings that are allowed but probably not what the user wants.
    """

    name: str
    figures: tuple[str, ...]
    tracking: Tracking
    budget: Budget
    specs: tuple[Spec, ...]
    resolved: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    population: Population = "auto"
    """How many runs are made together at most: no part of the specs, since results do not depend on it."""

    @cached_property
    def ids(self) -> list[str]:
        """The id of each run, in the order of `specs`."""
        return run_ids(self.specs)


def load_experiment(
    path: Path,
    *,
    overrides: Iterable[str] = (),
    seeds: Sequence[int] | None = None,
    device: str = "cpu",
    data_root: Path | None = None,
) -> Experiment:
    """Reads, overrides, validates and expands one file.  Raises `ConfigError`.

    Looks into the data root for the user's own data, on whose sizes and hashes the specs depend.
    """
    file = _read(path, overrides)
    fields = validate(file, (), ExperimentFields, file.content)
    catalogue = _catalogue(file, fields)
    figures = [found(file, ("figures", i), name, catalogue, "figure") for i, name in enumerate(fields.figures)]
    read = read_space(file, fields.space)
    task = read_task(file, fields.task, catalogue, data_root)
    reader = MethodReader(file, catalogue, read)
    methods = [reader.spec(("methods", place), item) for place, item in enumerate(fields.methods)]
    check_names(read, catalogue, reader.options)
    for key, misfit in (*misfits(task, methods), *unfit_periods(task, fields.budget), *untunable(task, methods)):
        raise file.error(key, misfit)
    refuse_twins(file, "methods", methods)
    shocks = _shocks(file, fields, methods, read.space)
    for key, misfit in (*late_events(task, fields.budget, fields.shocks), *classless_events(task, fields.shocks)):
        raise file.error(key, misfit)
    engine, remark = engine_of(file, fields.engine, methods, device=device)
    common = {**_common(fields, task, read.space, device), **({} if engine == EAGER else {"engine": engine})}
    chosen = tuple(seeds) if seeds is not None else fields.seeds
    _check_count(file, len(chosen) * len(methods) * (1 + len(shocks)))
    resolved = {**common, "methods": methods, "shocks": shocks, "seeds": list(chosen)}
    _check_figures(file, figures, resolved)
    specs = tuple(planned_specs(resolved))
    if origins := {figure.name: figure.origin for figure in figures if figure.origin}:
        resolved["figures"] = origins
    return Experiment(
        fields.experiment, tuple(figure.name for figure in figures), fields.tracking, fields.budget, specs, resolved,
        warnings=(*remark, *too_short(task, fields.budget, methods)), population=fields.population,
    )  # fmt: skip


def _read(path: Path, overrides: Iterable[str]) -> YamlFile:
    """Returns a file with its overrides, and with all its names spelt out."""
    file = read_yaml(path)
    _spell_out(file.content)
    for text in overrides:
        override(file, text)
        _spell_out(file.content)
    return file


def _common(fields: ExperimentFields, task: TaskRead, space: Space, device: str) -> Spec:
    """Returns what the specs of all runs share."""
    return {
        "protocol": PROTOCOL,
        "task": task.spec,
        "space": space.model_dump(),
        "budget": {"unit": fields.budget.unit, "amount": fields.budget.amount},
        "evaluations": fields.evaluations,
        "device": device,
        "threads": fields.threads,
        **({"gradient_batches": fields.gradient_batches} if fields.gradient_batches else {}),
    }


def _check_figures(file: YamlFile, figures: Sequence[Found], resolved: Mapping[str, Any]) -> None:
    """Refuses a figure in which no run of the experiment could be."""
    for place, figure in enumerate(figures):
        if figure.entry.needs and (lacking := figure.entry.needs(resolved)):
            raise file.error(("figures", place), f"figures: {figure.name!r} {lacking}")


def _check_count(file: YamlFile, count: int) -> None:
    if count > MOST_RUNS:
        raise file.error(("seeds",), f"seeds: with methods and shocks {count:,} runs; at most {MOST_RUNS:,} are allowed")


def _catalogue(file: YamlFile, fields: ExperimentFields) -> Catalogue:
    """Returns what the file can name: our entries and those of its plug-ins."""
    catalogue = Catalogue(file.path.parent)
    for place, plugin in enumerate(fields.plugins):
        try:
            catalogue.add(plugin)
        except PluginError as error:
            raise file.error(("plugins", place), str(error)) from None
    return catalogue


def _shocks(file: YamlFile, fields: ExperimentFields, methods: Sequence[Spec], space: Space) -> list[Spec]:
    """Returns the shocks as specs hold them, after checking that each method takes them."""
    for (place, shock), method in product(enumerate(fields.shocks), methods):
        check_shock(file, ("shocks", place), shock, method=method, space=space)
    shocks = [shock.resolved() for shock in fields.shocks]
    refuse_twins(file, "shocks", shocks)
    return shocks


def _spell_out(content: CommentedMap) -> None:
    """Replaces each bare name of the task, of a method, or of a method that is repeated by `{name: NAME}`."""
    _spell_out_at(content, "task")
    methods = content.get("methods")
    for place in range(len(methods)) if isinstance(methods, CommentedSeq) else ():
        _spell_out_at(methods, place)
        method = methods[place]
        while isinstance(method, CommentedMap):
            _spell_out_at(method, "over")
            method = method.get("over")


def _spell_out_at(container: CommentedMap | CommentedSeq, key: str | int) -> None:
    if isinstance(key, int) or key in container:
        item = container[key]
        if isinstance(item, str):
            container[key] = CommentedMap(name=item)
