"""`oho-bench audit`: how far a recorded run's hypergradient is from the derivative."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

import oho
from bench.clock import Ledger
from bench.online import OnlineState
from bench.records import RecordError, read_run
from bench.spec import method_of, task_of

CHUNK_STEPS = 100


def audit_run(folder: Path, *, steps: int, at: int | None, data_root: Path | None) -> str:
    """Trains a run again up to its last `steps` steps before step `at`, its end by default, and audits those.

    A training is a function of its spec and the number of steps, so that its record is enough to repeat it.

    Raises:
        RecordError: for a folder that holds no run, a run without hypergradients, or steps it has not made.
    """
    if not (folder / "spec.json").exists():
        raise RecordError(f"{folder}: no spec.json; give the folder of one run, RESULTS/ID")
    run = read_run(folder)
    last = at if at is not None else (run.outcome.steps if run.outcome else 0)
    device = torch.device(run.spec["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RecordError(f"{folder}: the run was made on a GPU, and this machine has none")
    torch.set_num_threads(run.spec["threads"] or os.cpu_count() or 1)
    method = method_of(dict(run.spec))
    task, _ = task_of(dict(run.spec), device, data_root)
    state = method.init(task, run.spec["seed"])
    if not isinstance(state, OnlineState):
        name = run.spec["method"]["name"]
        raise RecordError(f"{folder}: method {name!r} has no hypergradient to audit; the methods named oho-* have")
    last -= last % getattr(state.optimizer, "update_every", 1)
    if not 1 <= steps <= last:
        raise RecordError(f"{folder}: {steps} steps up to step {last} cannot be audited; allowed are 1 to {last}")
    before = last - steps
    chunks = [min(CHUNK_STEPS, before - start) for start in range(0, before, CHUNK_STEPS)]
    console = Console(stderr=True)
    for chunk in track(chunks, "training again", console=console, transient=True, disable=not console.is_terminal):
        state = method.advance(state, steps=chunk, progress=0.0, ledger=Ledger())
    pairs = []
    for step in range(before, last):
        train, held = state.batches.at(step), state.validation_batches.at(step)
        pairs.append(
            (partial(task.training_loss, state.model, train), partial(task.validation_loss, state.model, held))
        )
    state.optimizer.on_phase = lambda phase: None
    try:
        report = oho.audit(state.model, state.optimizer, pairs)
    except ValueError as error:
        raise RecordError(f"{folder}: {error}") from None
    label, seed = run.spec["method"]["label"], run.spec["seed"]
    head = f"{label} on {task.name}, seed {seed}: hypergradient after step {last}, the last {steps} steps in float64"
    return f"{head}\n{report}"
