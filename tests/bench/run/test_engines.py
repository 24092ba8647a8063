"""A run whose steps are a graph's gives the records of one whose steps are made one by one.

There is no GPU here: a spec made by hand asks for a graph on a CPU, and gets the stand-in, which refuses what no graph
could repeat.  Experiments refuse such a spec.
"""

from dataclasses import replace

import pytest
import torch
from helpers import StoppedAfter, experiment, records_together, run_one, write_config
from torch import nn

import oho
from bench.experiment.expansion import load_experiment
from bench.experiment.spec import task_of
from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Interrupted
from bench.protocol import CannotStackError, Capturing, Ledger
from bench.records import read_run, run_id
from bench.run.batch_key import MOST_MEMBERS, batch_key, most_members
from bench.run.plain_steps import measured

STEPS = 23
CASES = {
    "oho-default": {},
    "oho-averaged": {"tune_loss": ["label_smoothing", "input_noise"], "validation_precision": "bfloat16"},
    "cosine": {"groups": 2, "average": {"name": "recent"}},
    "adam": {},
}
SLOW = {"oho-layerwise": {"source": "training"}, "multistep": {}, "warmup-cosine": {}}
NOISY = ("oho-averaged", "cosine", "oho-layerwise")
"""Methods whose network has dropout here."""


TOGETHER = {
    "oho-default": {"tune_loss": ["label_smoothing", "input_noise"], "curvature_fraction": 0.5},
    "oho-averaged": {"windows": {"first": 5, "length": 5, "period": 10}},
    "cosine": {"lr": 0.01, "weight_decay": 0.1, "average": {"name": "recent"}},
    "hypergradient-descent": {"lr": 0.01},
    "hdm": {"lr": 0.01},
}
SHOCK = "shocks=[{events: [{epoch: 0.5, set: {lr: 0.02}}]}]"


def losses_of(spec, folder):
    spec = {**spec, "budget": {"unit": "steps", "amount": STEPS}, "evaluations": 3}
    outcome = run_one(spec, folder)
    assert outcome.status.value == "budget_reached", outcome.message
    records = read_run(folder / run_id(spec)).records
    kept = [(record["step"], record["validation_loss"], record["test_loss"], record.get("hyper")) for record in records]
    return outcome, kept


@pytest.mark.parametrize("method", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_graph_gives_the_records_of_eager_steps(method, tmp_path):
    noisy = ("task.name=mnist-mlp-dropout", "task.data=digits", "task.validation_size=300", "task.width=16")
    overrides = noisy if method in NOISY else ()
    spec = experiment(tmp_path, method, overrides=overrides).specs[0]
    spec = {**spec, "method": {**spec["method"], **(CASES | SLOW)[method]}}
    eager, found = losses_of(spec, tmp_path / "eager")
    graph, repeated = losses_of({**spec, "engine": "graph"}, tmp_path / "graph")
    assert (eager.environment["engine"], graph.environment["engine"]) == ("eager", "graph")
    assert graph.environment["numerics"]["cudnn_deterministic"] is True
    for one, other in zip(found, repeated, strict=True):
        if method.startswith("oho-"):  # trainings by PyTorch's own optimizers take fused kernels, which round otherwise
            assert one == other
        else:
            assert one[0] == other[0]
            assert one[1:3] == pytest.approx(other[1:3], rel=1e-4)


@pytest.mark.parametrize("method", TOGETHER)
def test_members_of_a_graph_give_the_records_of_eager_ones(method, tmp_path):
    """With a shock, with a member that diverges and leaves the others, and one method after a stop."""
    overrides = ("task.width=4", "task.hidden_layers=1", "task.batch_size=60", "budget.steps=18", "evaluations=2", SHOCK)
    if method == "cosine":
        overrides += ("methods.0.optimizer=adamw",)
    specs = experiment(tmp_path, method, overrides=overrides).specs
    specs = [{**spec, "method": spec["method"] | TOGETHER[method]} for spec in specs]
    specs.append({**specs[0], "seed": 5, "method": specs[0]["method"] | {"lr": 3e38}})
    _, expected = records_together(specs, tmp_path)
    specs = [{**spec, "engine": "graph"} for spec in specs]
    if method == "cosine":
        with pytest.raises(Interrupted):
            records_together(specs, tmp_path, stopper=StoppedAfter(2))
    outcomes, found = records_together(specs, tmp_path)
    last = "budget_reached" if method == "hdm" else "diverged"  # its trials that are not finite move nothing
    assert [outcome.status.value for outcome in outcomes] == ["budget_reached", "budget_reached", last]
    assert {(outcome.environment["engine"], outcome.shared_by) for outcome in outcomes} == {("graph", 3)}
    assert str(found) == str(expected)  # NaN is NaN


def test_which_members_a_graph_has(tmp_path):
    *specs, search = (
        {**spec, "engine": "graph"} for spec in experiment(tmp_path, "cosine", "oho-default", "random-search").specs
    )  # fmt: skip
    assert {batch_key(spec)["engine"] for spec in specs} == {"graph"}
    with pytest.raises(CannotStackError, match="its engine is graph, and its method's batch has eager steps alone"):
        batch_key(search)


def test_a_batch_on_a_gpu_has_more_large_networks(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=("task.width=256",)).specs[0]
    assert 2 < most_members(spec, None) < 20
    assert most_members({**spec, "device": "cuda"}, None) == MOST_MEMBERS


def test_a_graph_that_cannot_be_is_refused_in_one_line(tmp_path):
    path = write_config(tmp_path, "fixed", "osgm")

    def engine_at(device, *overrides):
        loaded = load_experiment(path, overrides=overrides, device=device)
        return loaded.specs[0].get("engine"), loaded.warnings

    with pytest.raises(ConfigError, match=r"engine: graph needs a GPU \(--device cpu\); allowed here are eager and auto$"):
        engine_at("cpu", "engine=graph")
    reason = "OSGM cannot be captured: its method has no captured step"
    with pytest.raises(ConfigError, match=rf":12:\d+: engine: graph: {reason}; auto makes"):
        engine_at("cuda", "engine=graph")
    assert engine_at("cpu", "engine=auto") == (None, ())
    assert engine_at("cuda", "engine=eager") == (None, ())
    engine, (line,) = engine_at("cuda")
    assert (engine, line) == (None, f"engine: eager for every method: {reason}")
    path = write_config(tmp_path, "random-search")
    with pytest.raises(ConfigError, match=r"Random search: Mechanic cannot be captured: its method has no captured step"):
        engine_at("cuda", "engine=graph", "methods.0.over=mechanic")
    path = write_config(tmp_path, "fixed", "oho-default", "random-search")
    assert engine_at("cuda", "engine=auto")[0] == "graph"
    assert engine_at("cuda", "engine=graph", "task.name=mnist-mlp-dropout")[0] == "graph"


def test_a_capture_that_fails_names_the_remedy_and_is_not_counted():
    capturing = Capturing(Ledger())
    with pytest.raises(oho.NotCapturableError, match="it asks; write `engine: eager` in the experiment"), capturing():
        raise oho.NotCapturableError("it asks")
    assert capturing.ledger.counted() == 0


class Asks(nn.Module):
    """Lets the host wait for what a tensor holds, as no graph can."""

    def forward(self, outputs):
        assert outputs.sum().item() is not None
        return outputs


def test_the_plain_steps_of_a_budget_are_made_by_the_engine_of_the_runs(tmp_path):
    spec = experiment(tmp_path, "fixed").specs[0]
    task, _ = task_of({**spec, "engine": "graph"}, torch.device("cpu"), None)
    asking = replace(task, make_model=lambda: nn.Sequential(task.make_model(), Asks()))
    assert min(measured(task, 0.0).blocks) > 0
    assert min(measured(replace(asking, engine="eager"), 0.0).blocks) > 0
    with pytest.raises(oho.NotCapturableError):
        measured(asking, 0.0)
