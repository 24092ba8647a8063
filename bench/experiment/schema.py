"""The keys of an experiment's file: names, types and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from bench.experiment.registries import SINKS
from bench.experiment.seeds import parse_seeds
from bench.experiment.shocks import Shock
from bench.experiment.suggestions import suggestion
from bench.protocol import Amount, Settings
from bench.records.names import checked_experiment
from bench.records.wandb_names import TRIAL_RUNS

MOST_THREADS = 512
MOST_MEMBERS = 1_000
MOST_TRIAL_RUNS = 10_000
LONGEST_PROJECT = 128
"""What Weights & Biases takes."""


class Budget(Amount):
    """What every run of an experiment gets: exactly one of counted seconds, plain steps, steps, epochs.

    N plain steps are the counted seconds that N steps of plain SGD take on the run's device.
    """

    EXAMPLES = "{seconds: 20}, {plain_steps: 20000}, {steps: 400} or {epochs: 10}"

    seconds: float | None = Field(default=None, gt=0)
    plain_steps: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)


def _known_sink(given: str) -> str:
    if given not in SINKS:
        raise ValueError(f"unknown; {suggestion(given, SINKS)}allowed: {', '.join(SINKS)}")
    return given


class Tracking(Settings):
    """Where runs are logged beside the records.  `mode` and `trial_runs` are W&B's; the other sinks keep local files."""

    sinks: tuple[Annotated[str, AfterValidator(_known_sink)], ...] = ("wandb",)
    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = Field(default="oho-bench", min_length=1, max_length=LONGEST_PROJECT, pattern=r"^[\w.-]+$")
    trial_runs: int = Field(default=TRIAL_RUNS, ge=0, le=MOST_TRIAL_RUNS)
    """The trials of a search that are runs of their own in W&B; all of them are in a table of the search's run."""

    def mode_in(self, environment: Mapping[str, str]) -> str:
        """Returns the mode: the file's, or else that of the variable WANDB_MODE."""
        given = "mode" in self.model_fields_set
        return self.mode if given else environment.get("WANDB_MODE") or self.mode


def _with_a_name(given: Any) -> Any:
    if isinstance(given, Mapping):
        return given
    raise ValueError("a name, or a mapping with a `name` and options, is expected")


Named = Annotated[Mapping[str, Any], BeforeValidator(_with_a_name)]
"""A task or a method: its name, its label and its options."""

def as_population(given: Any) -> Any:
    """Returns what says how many runs are made together, if it says so.  Raises ValueError."""
    if given in ("auto", "off") or (type(given) is int and 2 <= given <= MOST_MEMBERS):
        return given
    raise ValueError(f"auto, off or a whole number from 2 to {MOST_MEMBERS} is expected")


Population = Annotated[Literal["auto", "off"] | int, BeforeValidator(as_population)]
"""How many runs are made together at most."""


class ExperimentFields(Settings):
    """The keys of an experiment's file.  The descriptions stand in the files that `oho-bench new` writes."""

    experiment: Annotated[str, AfterValidator(checked_experiment)] = Field(
        description="what results and reports call the experiment: lower-case letters, digits and dashes"
    )
    figures: tuple[str, ...] = Field(default=(), description="the figures that the runs feed")
    plugins: tuple[str, ...] = Field(
        default=(), description="files (./NAME.py) and modules that register methods, tasks, data sets or figures"
    )
    task: Named = Field(description="what is trained: the name of a task, or {name: ..., and its options}")
    budget: Budget = Field(
        description="what each run may spend: {seconds: ...} as counted, {plain_steps: ...} as long as so many steps of "
        "plain SGD take on this machine, {steps: ...} or {epochs: ...}"
    )
    seeds: tuple[int, ...] = Field(description="each method runs once with each seed: 3, 0-4, `0-2,7` or [0, 1, 4]")
    space: str = Field(
        description="the laws that initial values and searches draw from: a file beside this one, or a shipped space"
    )
    methods: tuple[Named, ...] = Field(
        min_length=1, description="what is compared: names, or {name: ..., label: ..., and the method's options}"
    )
    shocks: tuple[Shock, ...] = Field(
        default=(),
        description="each method also runs once with each shock, whose events set or scale a hyperparameter, "
        "shift_labels, rotate inputs by degrees, or corrupt a fraction of labels (label_noise) at an epoch",
    )
    evaluations: int = Field(default=40, ge=1, description="evaluations spread evenly over the budget")
    gradient_batches: int | None = Field(
        default=None, ge=2, description="the number of batches whose gradients are compared at evaluations"
    )
    engine: Literal["eager", "graph", "auto"] = Field(
        default="auto",
        description="how steps are made: eager; graph, each training's step as one CUDA graph, for every method alike; or "
        "auto, graph where there is a GPU and all methods allow it",
    )
    threads: int | None = Field(
        default=None, ge=1, le=MOST_THREADS, description="threads of PyTorch on a CPU; null takes all cores"
    )
    population: Population = Field(
        default="auto",
        description="runs in steps or epochs that differ in seed, values, schedule or shock alone are trained together: "
        "auto, off, or at most so many; they then share their seconds, and results are the same to rounding",
    )
    tracking: Tracking = Field(
        default=Tracking(),
        description="trackers beside the records: sinks [wandb, trackio, tensorboard], W&B's mode (offline, online, "
        "disabled), and a project",
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, given: Any) -> tuple[int, ...]:
        return parse_seeds(given)
