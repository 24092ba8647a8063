"""`oho-bench sweep` writes the W&B sweep that equals a search of an experiment."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from bench.experiment.expansion import Experiment, Spec, load_experiment
from bench.experiment.shipped import experiment_file
from bench.experiment.spec import method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Task
from bench.records.durations import unit_name
from bench.records.schema import TIMED
from bench.records.wandb_names import BEST_VALIDATION_LOSS, LONGEST_NAME, plain
from bench.tracking.sweep_parameters import Parameter, SweepError, parameters_of

KINDS = {"random-search": "random", "bayesian-search": "bayes"}
"""W&B's method by ours."""
HALVING = ("successive-halving", "hyperband")
"""The pruners that W&B's `hyperband` stands for."""
ETA = 3
"""The share that our pruners let go on, of which W&B's brackets are powers."""


@dataclass(frozen=True)
class Order:
    """The options of a command line that say which search is meant."""

    config: Path
    method: str
    _: KW_ONLY
    seed: int | None
    overrides: Sequence[str]
    data_root: Path | None
    device: str = "cpu"


@dataclass(frozen=True)
class Search:
    """A search of an experiment, by the spec of its run, and the parameters of the sweep that equals it."""

    experiment: Experiment
    spec: Spec
    parameters: tuple[Parameter, ...]

    @property
    def trial_epochs(self) -> int | None:
        """The length of a trial, or None where it is searched."""
        return self.spec["method"]["trial_epochs"]


def read_search(order: Order) -> Search:
    """Returns the search that is meant.  Raises `ConfigError`."""
    seeds = None if order.seed is None else (order.seed,)
    experiment = load_experiment(
        experiment_file(order.config), overrides=order.overrides, seeds=seeds, device=order.device,
        data_root=order.data_root,
    )  # fmt: skip
    spec = _meant(experiment, order.method)
    if "selection_every" in spec["task"]:
        remedy = "leave it out with --set task.selection_every=null"
        raise ConfigError(f"task.selection_every: a sweep's trials have budgets in epochs, not in counted time; {remedy}")
    method: Any = method_of(spec)
    try:
        return Search(experiment, spec, parameters_of(method.space, method.open))
    except SweepError as error:
        raise ConfigError(f"--method {order.method}: {error}") from None


def _meant(experiment: Experiment, name: str) -> Spec:
    """Returns the run of a search with the experiment's first seed, given the search's name or label."""
    seed = experiment.specs[0]["seed"]
    specs = [spec for spec in experiment.specs if spec["seed"] == seed and "shock" not in spec]
    searches = [spec for spec in specs if spec["method"]["name"] in KINDS]
    found = [spec for spec in specs if spec["method"]["label"] == name]
    found = found or [spec for spec in specs if spec["method"]["name"] == name]
    if len(found) == 1 and found[0] in searches:
        return found[0]
    labels = ", ".join(repr(spec["method"]["label"]) for spec in (found if len(found) > 1 else searches)) or "none"
    if len(found) > 1:
        raise ConfigError(f"--method {name}: several methods have this name; give the label of one: {labels}")
    problem = "W&B has no sweep that equals it" if found else "the experiment has no such method"
    allowed = f"a sweep can be the {' or '.join(KINDS)} of an experiment, here {labels}"
    raise ConfigError(f"--method {name}: {problem}; {allowed}")


def sweep_text(order: Order, *, name: str | None, trials: int | None, results: Path) -> tuple[str, list[str]]:
    """Returns the sweep's definition, and lines about what is not in it.  Raises `ConfigError`."""
    search = read_search(order)
    task, _ = task_of(search.spec, torch.device("cpu"), order.data_root)
    shortest = _shortest_trial(search, task)
    method, pruner = search.spec["method"], search.spec["method"]["pruner"]
    usual = f"{search.experiment.name}, {search.spec['task']['name']}, {method['label']}, seed {search.spec['seed']}"
    definition = {
        "name": name or plain(usual, LONGEST_NAME),
        "project": search.experiment.tracking.project,
        "program": "oho-bench",
        "method": KINDS[method["name"]],
        "metric": {"name": BEST_VALIDATION_LOSS, "goal": "minimize"},
        "run_cap": trials or _trials_in_budget(search, task),
        **({"early_terminate": _early_terminate(search, shortest / task.selection_period)} if pruner in HALVING else {}),
        "parameters": {parameter.name: dict(parameter.definition) for parameter in search.parameters},
        "command": _command(order, search.spec["seed"], results),
    }
    is_left_out = pruner not in ("none", *HALVING)
    return _yaml(definition), [f"the pruner {pruner!r} is left out, since W&B has none like it"] if is_left_out else []


def _shortest_trial(search: Search, task: Task) -> int:
    """Returns the steps of the shortest trial.  Raises `ConfigError` if it would end before it has selected anything."""
    epochs = search.trial_epochs
    if epochs is None:
        law: Any = next(each.definition for each in search.parameters if each.hyperparameter == "trial_epochs")
        epochs = math.ceil(law.get("min", law.get("value")))
    steps = epochs * task.steps_per_epoch
    if steps < task.selection_period:
        raise ConfigError(
            f"task.selection_epochs: a trial of {steps:,} steps would end before its first selection, after"
            f" {task.selection_period:,} steps; lower this, or raise the search's trial_epochs"
        )
    return steps


def _trials_in_budget(search: Search, task: Task) -> int:
    """Returns how many whole trials the search's budget holds, and at least one."""
    unit, amount = search.spec["budget"]["unit"], search.spec["budget"]["amount"]
    if unit in TIMED or search.trial_epochs is None:
        why = f"is in {unit_name(unit)}" if unit in TIMED else "may hold few long trials or many short ones"
        raise ConfigError(f"the search's budget {why}, so how many trials W&B may start is yours to say: give --trials N")
    steps = amount * (task.steps_per_epoch if unit == "epochs" else 1)
    return max(1, math.floor(steps / (search.trial_epochs * task.steps_per_epoch) + 1e-9))


def _early_terminate(search: Search, validations: float) -> dict[str, Any]:
    """Returns W&B's hyperband for trials with so many validations.

    W&B counts the rows of a run: for a validation those of its share of the evaluations and, if the loss has improved, that
    of the model that was selected.
    """
    return {"type": "hyperband", "min_iter": round(search.spec["evaluations"] / validations + 1), "eta": ETA}


def _command(order: Order, seed: int, results: Path) -> list[str]:
    own = ["--method", order.method, "--seed", str(seed), "--out", str(results)]
    own += [word for text in order.overrides for word in ("--set", text)]
    own += ["--root", str(order.data_root)] if order.data_root else []
    return ["${program}", "agent", str(order.config), *own, "${args_no_hyphens}"]


def _yaml(definition: dict[str, Any]) -> str:
    yaml, file = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.representer.add_representer(float, _represented)
    yaml.dump(definition, file)
    return f"# Start it with `wandb sweep FILE`, then, as often as you like, `wandb agent ID`.\n{file.getvalue()}"


def _represented(representer: Any, number: float) -> Any:
    """Returns a number with a point: W&B's client reads YAML 1.1, where 1e-05 is a text."""
    text = repr(number)
    return representer.represent_scalar("tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e"))
