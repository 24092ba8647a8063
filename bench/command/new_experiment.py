"""`oho-bench new` writes a first configuration, which has every key of an experiment."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ruamel.yaml import YAML

from bench.experiment.plugins import Catalogue
from bench.experiment.registries import TASKS
from bench.experiment.schema import ExperimentFields
from bench.experiment.suggestions import suggestion
from bench.experiment.yaml_file import ConfigError
from bench.records.files import write_named
from bench.records.names import checked_experiment
from bench.tasks.entry import TaskEntry

WIDTH = 110
EXAMPLES = {
    "figures": "[distribution, anytime]",
    "plugins": "[./restarts.py]",
    "budget": "{seconds: 2}",
    "seeds": "0-2",
    "space": "fair",
    "methods": """
  - fixed                                           # what is left open is drawn from the space, by the seed
  - {name: cosine, optimizer: momentum, lr: 0.1}    # `oho-bench list cosine` has the options
  - {name: random-search, trial_epochs: 5, over: fixed}
  - oho-default""",
    "shocks": """
  - events: [{epoch: 5, scale: {lr: 10}}]
  - {label: Noise, events: [{epoch: 5, label_noise: 0.3}]}""",
    "evaluations": "40",
    "engine": "auto",
    "gradient_batches": "4",
    "population": "auto",
    "threads": "1",
    "tracking": "{sinks: [wandb], mode: offline, project: oho-bench}",
}
"""The example values of the keys other than experiment and task."""

WRITTEN_OUT = ("figures", "threads")
"""Optional keys that the file sets nevertheless, because a first experiment is better with them."""


def write_new(name: str, task: str) -> str:
    """Writes a configuration that can be run at once, and returns what to do next.

    Raises:
        ConfigError: if no experiment can have the name, the task is unknown, or the file already exists.
        StorageError: if the file cannot be written.
    """
    path = Path(f"{name.removesuffix('.yaml')}.yaml")
    _check(path, task)
    if path.exists():
        raise ConfigError(f"{path}: the file already exists and was left unchanged; choose another name")
    write_named(path, text_of(path.stem, task))
    steps = {
        f"oho-bench run {path} --dry-run": "the runs, and the budget in all",
        f"oho-bench run {path} --out runs/{path.stem}": "repeat the command to continue if it is interrupted",
        f"oho-bench report runs/{path.stem} -o {path.stem}.pdf": "the report, its page and the figures",
        "oho-bench list": "the methods, tasks and figures to choose from",
    }
    width = max(map(len, steps))
    return "\n".join([f"{path} is written.  Next:", *(f"  {step:<{width}}  # {about}" for step, about in steps.items())])


def text_of(experiment: str, task: str) -> str:
    """Returns the file's text: for each key of an experiment, a comment that explains it and an example."""
    head = f"`oho-bench run {experiment}.yaml` makes these runs.  Keys that are commented out may be left out."
    parts, examples = [_comment(head)], {"experiment": _as_text(experiment), "task": task, **EXAMPLES}
    for key, field in ExperimentFields.model_fields.items():
        entry = f"{key}: {examples[key]}".replace(": \n", ":\n")
        if not (field.is_required() or key in WRITTEN_OUT):
            entry = textwrap.indent(entry, "#")
        about = str(field.description)
        parts.append(f"{_comment(f'{about[0].upper()}{about[1:]}.')}\n{entry}")
    return "\n\n".join(parts) + "\n"


def _as_text(name: str) -> str:
    """Returns a name as YAML that is read as text: a bare 2024, 1e5 or null is not."""
    return name if YAML(typ="safe").load(name) == name else f'"{name}"'


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _check(path: Path, task: str) -> None:
    try:
        checked_experiment(path.stem)
    except ValueError as error:
        raise ConfigError(f"{path.stem}: {error}") from None
    try:
        entry: TaskEntry = Catalogue(path.parent).find("task", task).entry
    except KeyError:
        raise ConfigError(f"--task {task}: unknown; {suggestion(task, TASKS)}allowed: {', '.join(TASKS)}") from None
    if entry.required_options:
        wanted = ", ".join(f"{name}: ..." for name in entry.required_options)
        remedy = f"leave --task out and write into the new file: task: {{name: {task}, {wanted}}}"
        raise ConfigError(f"--task {task}: the task has options without a default; {remedy}")
