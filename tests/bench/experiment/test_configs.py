"""Every configuration that ships can be planned."""

import pytest
from helpers import ROOT

from bench.experiment.expansion import load_experiment

CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "spaces"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_loads(path):
    experiment = load_experiment(path)
    assert experiment.specs


@pytest.mark.parametrize("space", ["published-random", "published-bayesian"])
@pytest.mark.parametrize("over", ["fixed", "step", "exponential", "cosine", "adam"])
def test_the_papers_spaces_serve_its_searches(space, over, tmp_path):
    search = "random-search" if space == "published-random" else "bayesian-search"
    inner = f"{{name: {over}}}"
    if over == "adam":
        inner = "{name: adam, optimizer: {name: adam, beta1: null, beta2: null}}"
    path = tmp_path / "replay.yaml"
    path.write_text(
        f"experiment: replay\ntask: {{name: mnist-mlp}}\nbudget: {{seconds: 1}}\nseeds: [0]\n"
        f"space: {ROOT}/configs/spaces/{space}\nmethods:\n  - {{name: {search}, trial_epochs: null, over: {inner}}}\n"
    )
    (spec,) = load_experiment(path).specs
    assert spec["method"]["trial_epochs"] is None
