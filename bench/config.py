"""YAML -> `Experiment` -> run specs.  Unknown keys, wrong types and unknown names are refused before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.method_registry import METHODS, OPTIMIZERS, build_method, default_label, missing_package, repeatable
from bench.protocol import Kick, Options
from bench.records import PROTOCOL
from bench.shocks import Shock
from bench.sizes import late_events, misfits
from bench.space import Space
from bench.spec import Spec
from bench.task_registry import TASKS
from bench.yaml_file import Key, YamlFile, override, read_yaml

WORDS = {
    "dict_type": "a mapping such as {name: fixed} is expected", "model_type": "a mapping is expected",
    "model_attributes_type": "a name or a mapping with a `name` is expected", "too_short": "one or more are expected",
    "tuple_type": "a list, [...], is expected",
}  # fmt: skip
"""In the place of what pydantic says of such mistakes."""
LONGEST_LABEL = 200
MOST_RUNS = 100_000
MOST_THREADS = 512
Model = TypeVar("Model", bound=BaseModel)


class Budget(BaseModel):
    """What every run of an experiment gets: exactly one of counted seconds, steps, epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of seconds, steps, epochs is needed")
        return self

    @property
    def unit(self) -> str:
        """seconds | steps | epochs."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def amount(self) -> float:
        """The budget in its unit."""
        return self.model_dump()[self.unit]


class Tracking(Options):
    """Where runs are logged beside the records."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = Field(default="oho-bench", min_length=1, pattern=r"^[\w.-]+$")


class ExperimentFields(Options):
    """The keys of an experiment's file."""

    experiment: str = Field(min_length=1, max_length=100, pattern=r"^[a-z0-9-]+$")
    figures: tuple[str, ...] = ()
    task: Mapping[str, Any]
    budget: Budget
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    space: str
    methods: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    shocks: tuple[Shock, ...] = ()
    evaluations: int = Field(default=40, ge=1, description="evaluations spread evenly over the budget")
    gradient_batches: int | None = Field(default=None, ge=2, description="whose gradients are compared at evaluations")
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    tracking: Tracking = Tracking()


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: `specs` hold all that affects a run's result, in the order they run."""

    name: str
    figures: tuple[str, ...]
    tracking: Tracking
    budget: Budget
    specs: tuple[Spec, ...]
    resolved: Mapping[str, Any]


def load_experiment(
    path: Path,
    *,
    figures: Mapping[str, Any],
    overrides: Iterable[str] = (),
    seeds: Sequence[int] | None = None,
    device: str = "cpu",
) -> Experiment:
    """Reads, overrides, validates and expands one file; `figures` are the known ones by name.  Raises `ConfigError`."""
    file = read_yaml(path)
    for text in overrides:
        override(file, text)
    fields = _validate(file, (), ExperimentFields, file.content)
    for index, figure in enumerate(fields.figures):
        _known(file, ("figures", index), figure, figures, "figure")
    space = _space(file, fields.space)
    task = _named(file, ("task",), fields.task, TASKS, "task")
    entry = TASKS[task]
    options = {**entry.defaults.model_dump(), **_rest(fields.task, "name")}
    task_options = _validate(file, ("task",), type(entry.defaults), options)
    methods = [_method(file, ("methods", i), item, space) for i, item in enumerate(fields.methods)]
    for key, misfit in misfits(entry.data, task_options, methods):
        raise file.error(key, misfit)
    _refuse_twins(file, methods)
    shocks = _shocks(file, fields, methods)
    for key, misfit in late_events(fields.budget.unit, fields.budget.amount, fields.shocks, entry.data, task_options):
        raise file.error(key, misfit)
    task_spec = {"name": task, **task_options.model_dump()}
    common = {
        "protocol": PROTOCOL,
        "task": task_spec,
        "space": space.model_dump(),
        "budget": {"unit": fields.budget.unit, "amount": fields.budget.amount},
        "evaluations": fields.evaluations,
        "device": device,
        "threads": fields.threads,
        **({"gradient_batches": fields.gradient_batches} if fields.gradient_batches else {}),
    }
    chosen = tuple(seeds) if seeds is not None else fields.seeds
    if (count := len(chosen) * len(methods) * (1 + len(shocks))) > MOST_RUNS:
        raise file.error(("seeds",), f"seeds: with methods and shocks {count:,} runs; at most {MOST_RUNS:,} are allowed")
    # Seeds outermost: an interrupted experiment has all methods at the first seeds, so it can already be compared.
    specs = tuple(
        {**common, "method": method, "seed": seed, **({"shock": shock} if shock else {})}
        for seed, method, shock in product(chosen, methods, (None, *shocks))
    )
    resolved = {**common, "methods": methods, "shocks": shocks, "seeds": list(chosen)}
    return Experiment(fields.experiment, fields.figures, fields.tracking, fields.budget, specs, resolved)


def _validate(file: YamlFile, prefix: Key, model: type[Model], content: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(_plain(content))
    except ValidationError as error:
        # A misspelt key is also a missing one; what was written can be pointed at.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = (*prefix, *_written(content, first["loc"]))
        what = f"{_dotted(key)}: {WORDS.get(first['type'], first['msg']).removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden":
            what = f"unknown key {_dotted(key)!r}; allowed: {', '.join(_allowed(model, first['loc']))}"
        elif first["type"] == "missing":
            what = f"key {_dotted(key)!r} is missing"
        elif first["type"] == "union_tag_not_found":
            what = f"{_dotted(key)}: a `name` is expected, such as {{name: momentum}}"
        elif first["type"] == "union_tag_invalid":
            found = first["ctx"]
            what = f"{_dotted(key)}: unknown name {found['tag']!r}; allowed: {found['expected_tags']}"
        elif not isinstance(first["input"], Mapping):
            what += f" (given {first['input']!r})"
        raise file.error(key, what) from None


def _written(content: Any, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The place as the file has it: without the names of a union's members, which pydantic puts between."""
    if not place:
        return ()
    first, rest = place[0], place[1:]
    is_item = isinstance(content, list | tuple) and isinstance(first, int)
    inside = is_item or (isinstance(content, Mapping) and first in content)
    if inside or not rest:
        return (first, *_written(content[first] if inside else None, rest))
    return _written(content, rest)


def _allowed(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys that the mapping at a place may have; a place within a union goes through the name of its member."""
    if len(place) == 1:
        return list(model.model_fields)
    if not isinstance(place[0], str):
        return _allowed(model, place[1:])
    inner = [*get_args(model.model_fields[place[0]].annotation), model.model_fields[place[0]].annotation]
    for option in (option for option in inner if isinstance(option, type) and issubclass(option, BaseModel)):
        name = option.model_fields.get("name")
        if name is None or name.default == place[1]:
            return _allowed(option, place[2:] if len(place) > 2 else place[1:])
    return []


def _method(file: YamlFile, key: Key, item: Mapping[str, Any], space: Space) -> Spec:
    name = _named(file, key, item, METHODS, "method")
    entry = METHODS[name]
    content = dict(_rest(item, "name", "label"))
    label = item.get("label", "")
    if not (isinstance(label, str) and label.isprintable() and len(label) <= LONGEST_LABEL):
        expected = f"one line of at most {LONGEST_LABEL} printable characters is expected"
        raise file.error((*key, "label"), f"label: {expected} (given {label!r})")
    if "pruner" in content and "pruner" not in entry.options.model_fields:
        raise file.error((*key, "pruner"), f"pruner: it ends trials of a search early, and {name!r} has no trials")
    if missing := missing_package(name):
        raise file.error(key, missing)
    over: dict[str, Any] = {}
    if entry.is_over:
        over = {"over": _over(file, (*key, "over"), content.get("over"), name, space)}
        content["over"] = None
    options = _validate(file, key, entry.options, content)
    if not entry.is_over:
        _covered(file, key, options, space)
    spec = {"name": name, **options.model_dump(mode="json"), **over}
    spec["label"] = item.get("label", default_label(spec))
    try:
        build_method(name, _rest(spec, "name", "label"), space)
    except ValueError as error:
        raise file.error(key, f"{name}: {error}") from None
    return spec


def _over(file: YamlFile, key: Key, item: Any, name: str, space: Space) -> Spec:
    """The method that another one repeats."""
    if not isinstance(item, Mapping):
        raise file.error(key, "over: the method to repeat is expected, such as {name: fixed}")
    allowed = repeatable(name)
    inner = _named(file, key, item, METHODS, "method")
    if inner not in allowed:
        raise file.error((*key, "name"), f"{name} cannot repeat {inner!r}; it can: {', '.join(allowed)}")
    return _method(file, key, item, space)


def _covered(file: YamlFile, key: Key, options: Any, space: Space) -> None:
    """The space has a law for every open value, and the method takes all that the law gives."""
    own = space.of(options.optimizer_name)
    open_names = [name for name, value in options.values().items() if value is None]
    if missing := own.missing(open_names):
        known = ", ".join(own.hyperparameters)
        raise file.error(key, f"space {space.name!r} has no law for {', '.join(missing)}; it has: {known}")
    for name, fraction in product(open_names, (0.0, 1.0)):
        value = own.hyperparameters[name].at(fraction)
        try:
            type(options).model_validate(options.replace({name: value}).model_dump())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise file.error(key, f"space {space.name!r} has a law for {name} that reaches {value:g}: {reason}") from None


def _refuse_twins(file: YamlFile, methods: Sequence[Spec]) -> None:
    labels = [method["label"] for method in methods]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise file.error(("methods", index), f"two methods are called {label!r}; give one of them another `label`")


def _shocks(file: YamlFile, fields: ExperimentFields, methods: Sequence[Spec]) -> list[Spec]:
    """The shocks as specs have them, once each method is known to take them."""
    for place, shock in enumerate(fields.shocks):
        for number, event in enumerate(shock.events):
            key = ("shocks", place, "events", number)
            for kick, method in product(event.kicks, methods):
                _kickable(file, (*key, "scale" if kick.value is None else "set", kick.name), kick, method)
    shocks = [shock.resolved() for shock in fields.shocks]
    labels = [shock["label"] for shock in shocks]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise file.error(("shocks", place), f"two shocks are called {label!r}; give one of them another `label`")
    return shocks


def _kickable(file: YamlFile, key: Key, kick: Kick, method: Spec) -> None:
    """The method has the hyperparameter, and may have the value."""
    trained = method.get("over", method)
    options: Any = METHODS[trained["name"]].options.model_validate(_rest(trained, "name", "label"))
    own = options.values() if method["name"] != "transplant" else {}
    if kick.name not in own:
        has = f"it has: {', '.join(own)}" if own else "its hyperparameters cannot be changed"
        raise file.error(key, f"method {method['label']!r} has no hyperparameter {kick.name!r}; {has}")
    if kick.value is not None:
        try:
            type(options).model_validate(options.replace({kick.name: kick.value}).model_dump())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise file.error(key, f"{kick.name} cannot be set to {kick.value:g} in {method['label']!r}: {reason}") from None


def _space(file: YamlFile, name: str) -> Space:
    path = file.path.parent / f"{name.removesuffix('.yaml')}.yaml"
    try:
        path.stat()
    except (OSError, ValueError):  # too long, or with a zero byte
        told = f"space: no file {path}; give a path relative to this file, such as ../spaces/fair"
        raise file.error(("space",), told) from None
    source = read_yaml(path)
    space = _validate(source, (), Space, source.content)
    for optimizer in space.optimizers:
        _known(source, ("optimizers", optimizer), optimizer, OPTIMIZERS, "optimizer")
    return space


def _named(file: YamlFile, key: Key, item: Any, known: Mapping[str, Any], kind: str) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    if name is None:
        raise file.error(key, f"{_dotted(key)}: a {kind} with a `name` is expected; one of: {', '.join(known)}")
    return _known(file, (*key, "name"), name, known, kind)


def _known(file: YamlFile, key: Key, name: Any, known: Mapping[str, Any], kind: str) -> str:
    if not isinstance(name, str) or name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise file.error(key, f"unknown {kind} {name!r}; {hint}allowed: {', '.join(known)}")
    return name


def _rest(item: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in taken}


def _dotted(key: Sequence[str | int]) -> str:
    return ".".join(map(str, key))


def _plain(value: Any) -> Any:
    """Plain Python containers and scalars in place of the parser's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


__all__ = ["Budget", "Experiment", "Spec", "Tracking", "load_experiment"]
