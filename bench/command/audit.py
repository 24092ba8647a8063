"""`oho-bench audit` measures how far a recorded run's hypergradient is from the derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

import oho
from bench.experiment.shocks import Event
from bench.experiment.spec import method_of, set_threads, task_of
from bench.online.state import OnlineState
from bench.protocol import Method
from bench.protocol.ledger import Ledger
from bench.records import RecordError, Run, read_run

CHUNK_STEPS = 100
SAME = 1e-3
"""The largest relative difference of hyperparameters at which a repeated training counts as the recorded one."""


def audit_run(folder: Path, *, steps: int, at: int | None, data_root: Path | None) -> str:
    """Repeats a run's training and audits the `steps` steps up to its last meta-step, or the last one up to step `at`.

    A training is a function of its spec and the number of steps, so its record is enough to repeat it.  A run with a shock
    is repeated up to its first event.

    Raises:
        RecordError: if the folder holds no ended run or a changed spec, if the run has no hypergradients or did not make
            these steps before its first event, or if this machine and its data do not reproduce the run.
    """
    run, made = _ended_run(folder)
    method, state = _start(run, data_root)
    most, why = _steps_to_repeat(run, made, state.task.steps_per_epoch)
    at = most if at is None else at
    last = at
    while last > 0 and not state.optimizer.is_meta_step(last):
        last -= 1
    if not (1 <= steps <= last and at <= most):
        raise RecordError(
            f"{folder}: --steps {steps} --at {at}: {why}; allowed are --at up to {most}, and --steps from 1 to that"
        )
    before = last - steps
    recorded = max((r["step"] for r in run.evaluations if r["step"] <= before), default=0)
    state = _trained(method, state, recorded)
    _check_repeated(run, state)
    state = _trained(method, state, before)
    state.training()
    closures = [_closures(state, step) for step in range(before, last)]
    state.optimizer.on_phase = lambda phase: None
    try:
        report = oho.audit(state.model, state.optimizer, closures)
    except ValueError as error:
        raise RecordError(f"{folder}: {error}") from None
    label, seed = run.spec["method"]["label"], run.spec["seed"]
    head = f"{label} on {state.task.data}, seed {seed}: hypergradient after step {last}, the last {steps} steps in float64"
    return f"{head}\n{report}"


def _closures(state: OnlineState, step: int) -> tuple[Callable[..., Tensor], ...]:
    """Returns the training and validation losses of a step, and that of its products, each in the world of that step."""
    world = state.task.world
    world.step = step
    train_loss, held_loss = state.closures(step)

    def held_then() -> Tensor:
        world.step = step
        return held_loss()

    return (train_loss, held_then, *state.part(step).values())


def _ended_run(folder: Path) -> tuple[Run, int]:
    """Returns the run and the number of its steps."""
    if folder.is_symlink():  # the user's own choice; within a results folder, no link is followed
        folder = folder.resolve()
    if not (folder / "spec.json").exists():
        raise RecordError(f"{folder}: no spec.json; give the folder of one run, RESULTS/ID")
    run = read_run(folder)
    if run.outcome is None:
        raise RecordError(f"{folder}: the run has not ended; run its experiment again first")
    return run, run.outcome.steps


def _steps_to_repeat(run: Run, made: int, steps_per_epoch: int) -> tuple[int, str]:
    """Returns the number of steps that can be repeated, and the reason why there are no more."""
    for event in (Event(**event) for event in run.spec.get("shock", {}).get("events", [])[:1]):
        if (step := event.step(steps_per_epoch)) < made:
            return step, f"after step {step} the run has an event, {event}, which an audit does not repeat"
    return made, f"the run made {made} steps"


def _start(run: Run, data_root: Path | None) -> tuple[Method, OnlineState]:
    """Returns the method and its state before the first step, on the run's data."""
    spec, device = dict(run.spec), torch.device(run.spec["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecordError(f"{run.folder}: the run was made on a GPU, and this machine has none")
    set_threads(spec)
    results = run.folder.parent
    method = method_of(spec, results)
    task, _ = task_of(spec, device, data_root, results)
    data = run.outcome.environment.get("data", task.data) if run.outcome else task.data
    if data != task.data:
        raise RecordError(f"{run.folder}: the run was made on {data}, here is {task.data}; give its data root by --root")
    state = method.init(task, run.spec["seed"])
    task.world.step = 0
    if not isinstance(state, OnlineState):
        name = run.spec["method"]["name"]
        raise RecordError(f"{run.folder}: method {name!r} has no hypergradient to audit; the methods named oho-* have")
    return method, state


def _trained(method: Method, state: OnlineState, step: int) -> OnlineState:
    """Returns the state at a later step."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training again", total=step, completed=state.step)
        while state.step < step and not state.diverged:
            method.advance(state, steps=min(CHUNK_STEPS, step - state.step), progress=0.0, ledger=Ledger())
            bar.update(task, completed=state.step)
    return state


def _check_repeated(run: Run, state: OnlineState) -> None:
    """Raises `RecordError` unless the hyperparameters at a recorded step are the recorded ones."""
    record = next((r for r in run.evaluations if r["step"] == state.step and r["step"] > 0), None)
    if record is None:
        return
    for name, values in record["hyper"].items():
        for value, repeated in zip(values, state.hyper[name], strict=True):
            recorded = math.nan if value is None else value  # JSON has no number for what is not finite
            is_same = math.isclose(recorded, repeated, rel_tol=SAME, abs_tol=1e-12)
            if not is_same and (math.isfinite(recorded) or math.isfinite(repeated)):
                raise RecordError(
                    f"{run.folder}: trained again, {name} is {repeated:g} at step {state.step}, the record has"
                    f" {recorded:g}; data, versions or machine are not those of the run"
                )
