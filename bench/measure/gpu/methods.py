"""Whether the device makes every method's steps as a graph: what they cost as one and eagerly, and whether they agree."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.experiment.expansion import load_experiment
from bench.experiment.shipped import experiment_file
from bench.experiment.spec import Spec
from bench.experiment.yaml_file import read_yaml
from bench.measure.gpu.tables import Table
from bench.protocol import GRAPH
from bench.records import Outcome
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

TINY = ["task.name=digits-mlp", "task.width=4", "task.hidden_layers=1", "budget.steps=6", "threads=1"]
COLUMNS = ("method", "steps", "eager, ms a step", "graph, ms a step", "quicker, ×", "difference of the test loss")


def methods(out: Path, device: torch.device, tiny: bool, seconds: float) -> None:
    """Writes the table `methods`; on a CPU, a stand-in for graphs checks that one would repeat the steps."""
    table = Table(
        out, "methods", title="Steps of each method, eager and as a graph", device=device, columns=COLUMNS,
        words="One training each, with as many steps. The difference is that of the last test loss, relative to it.",
    )  # fmt: skip
    path, deadline = experiment_file(Path("gpu/methods")), time.monotonic() + (600 if tiny else seconds)
    for method in read_yaml(path).content["methods"]:
        label = method.get("label") or " ".join(str(method[key]) for key in ("name", "optimizer") if key in method)
        if time.monotonic() > deadline:
            table.add(label, "not measured: the time was over", *[""] * (len(COLUMNS) - 2))
            continue
        settings = [*(TINY if tiny else []), f"methods=[{json.dumps(method, default=dict)}]", "engine=eager"]
        table.measure(label, cells=partial(_cells, path, settings, device))


def _cells(path: Path, settings: list[str], device: torch.device) -> list[Any]:
    """Returns the steps, their milliseconds in both ways, how many times quicker a graph is, and how far it is off."""
    (spec,) = load_experiment(path, overrides=settings, device=device.type).specs
    eager, graph = _ended(spec), _ended({**spec, "engine": GRAPH})
    steps = eager.final["step"]
    slow, fast = (1e3 * (each.accounts["train"] + each.accounts["hypergradient"]) / steps for each in (eager, graph))
    losses = [each.final["test_loss"] for each in (eager, graph)]
    difference = abs(losses[0] - losses[1]) / losses[0]
    return [steps, f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.1f}", f"{difference:.1e}"]


def _ended(spec: Spec) -> Outcome:
    """Makes a run and returns its outcome.  Raises RuntimeError for one that failed."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(spec, Path(folder), data_root=None, open_sink=lambda *given: NoSink())
    if not outcome.status.is_result:
        raise RuntimeError(outcome.last_line)
    return outcome
