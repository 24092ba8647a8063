"""Every configuration that ships can be planned."""

import pytest
from helpers import ROOT

from bench.experiment.expansion import load_experiment

CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "spaces"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_loads(path):
    experiment = load_experiment(path)
    assert experiment.specs


INNER = [
    "{name: fixed}", "{name: step}", "{name: exponential}", "{name: cosine}",
    "{name: adam, optimizer: {name: adam, beta1: null, beta2: null}}",
]  # fmt: skip


@pytest.mark.parametrize(("space", "search"), [("random", "random-search"), ("bayesian", "bayesian-search")])
def test_the_papers_spaces_serve_its_searches(space, search, tmp_path):
    path = tmp_path / "replay.yaml"
    path.write_text(
        f"experiment: replay\ntask: {{name: mnist-mlp}}\nbudget: {{seconds: 1}}\nseeds: [0]\n"
        f"space: {ROOT}/configs/spaces/published-{space}\nmethods:\n"
        + "".join(f"  - {{name: {search}, trial_epochs: null, over: {inner}}}\n" for inner in INNER)
    )
    specs = load_experiment(path).specs
    assert [spec["method"]["trial_epochs"] for spec in specs] == [None] * len(INNER)
