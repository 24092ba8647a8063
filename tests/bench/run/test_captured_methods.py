"""Methods other than trainings by PyTorch's optimizers and OHO, made by a graph, or by the stand-in of `test_engines`."""

import pytest
from helpers import experiment, records_together, run_one, stopped

from baselines.matrix_optimizers import SoapOptions
from baselines.tuning_free import DAdaptationOptions, DogOptions, ProdigyOptions, ScheduleFreeOptions
from bench.experiment.expansion import load_experiment
from bench.experiment.shipped import experiments
from bench.records import read_run, run_id

CASES = {
    "dowg": {},
    "hypergradient-descent": {"lr": 0.05},
    "hdm": {},
    "meta-optimize": {"lr": 3e-3},
    "prodigy": {"schedule": "cosine"},
    "d-adaptation": {},
    "soap": {"lr": 3e-3, "every": 4},
    "schedule-free-adamw": {"lr": 0.01},
    "ldog": {},
    "oho-published": {},
    "oho-global": {"temperature": 1e-6, "compare_exact": True},
    "transplant": {},
}
FUSED = {"muon": {"lr": 3e-3}, "population": {}}
"""Methods whose graphs take PyTorch's fused kernels, which round otherwise."""
OTHERWISE = (ProdigyOptions, DAdaptationOptions, SoapOptions, ScheduleFreeOptions, DogOptions)
"""Options of methods whose eager steps are a package's: see `tests/baselines/test_graph_steppers.py`."""
STEPS = {"population": 70}
SMALL = ("task.width=4", "task.hidden_layers=1", "task.batch_size=300")


@pytest.fixture(autouse=True)
def one_form(monkeypatch):
    for options in OTHERWISE:
        monkeypatch.setattr(options, "stepper", options.graph_stepper)


def spec_of(method, folder):
    spec = experiment(folder, method, overrides=SMALL).specs[0]
    budget = {"unit": "steps", "amount": STEPS.get(method, 23)}
    return {**spec, "method": {**spec["method"], **(CASES | FUSED)[method]}, "budget": budget, "evaluations": 3}


def records_of(spec, folder, **options):
    outcome = run_one(spec, folder, **options)
    assert outcome.status.value == "budget_reached", outcome.message
    timed = ("counted_seconds", "wall_seconds", "crc")
    return [{k: v for k, v in record.items() if k not in timed} for record in read_run(folder / run_id(spec)).records]


@pytest.mark.parametrize("method", [*CASES, *FUSED])
def test_a_graph_gives_the_records_of_eager_steps_and_goes_on_after_a_stop(method, tmp_path):
    spec = spec_of(method, tmp_path)
    found, graph = records_of(spec, tmp_path / "eager"), {**spec, "engine": "graph"}
    repeated = records_of(graph, tmp_path / "graph")
    if method in FUSED:
        losses = [[record.get("validation_loss") for record in records] for records in (found, repeated)]
        assert [loss for loss in losses[0] if loss] == pytest.approx([loss for loss in losses[1] if loss], rel=1e-4)
    else:
        assert str(found) == str(repeated)
    before = stopped(graph, tmp_path / "stopped", 3)
    assert 0 < len(before.records) < len(repeated)
    assert str(records_of(graph, tmp_path / "stopped")) == str(repeated)


@pytest.mark.parametrize("method", ["transplant", "oho-published", "oho-global"])
def test_members_of_a_graph_give_the_records_of_eager_ones(method, tmp_path):
    """Runs without a shock; `test_engines` has the others."""
    overrides = ("budget.steps=18", "evaluations=2")
    specs = experiment(tmp_path, method, overrides=(*SMALL, *overrides), seeds=[0, 1]).specs
    specs = [{**spec, "method": spec["method"] | CASES[method]} for spec in specs]
    _, expected = records_together(specs, tmp_path)
    outcomes, found = records_together([{**spec, "engine": "graph"} for spec in specs], tmp_path)
    assert {(outcome.environment["engine"], outcome.shared_by) for outcome in outcomes} == {("graph", 2)}
    assert found == expected


def test_every_shipped_experiment_has_graphs_on_a_gpu():
    engines = {name: load_experiment(path, device="cuda").specs[0].get("engine") for name, path in experiments().items()}
    assert set(engines.values()) == {"graph"}, engines
