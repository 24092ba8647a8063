"""The full-width ResNet-18 on real CIFAR-10 images."""

import math

import pytest
import torch
from helpers import experiment

from bench.experiment.registries import DATA_SETS, TASKS
from bench.experiment.spec import method_of
from bench.protocol.ledger import Ledger
from bench.tasks.data_sets import data_root
from bench.tasks.entry import build_task

STEPS = 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_global_oho_trains_a_resnet18(tmp_path):
    """Batches are smaller than the task's, so that two CPU cores get through it in minutes."""
    if not DATA_SETS["cifar10"].present(data_root()):
        pytest.skip(f"no CIFAR-10 under {data_root()}; set OHO_DATA or `oho-bench data fetch cifar10`")
    smaller = {"batch_size": 25, "validation_batch_size": 25}
    options = TASKS["cifar10-resnet18"].defaults.model_copy(update=smaller)
    task, _ = build_task("cifar10-resnet18", TASKS["cifar10-resnet18"], options, device=torch.device("cpu"))
    start = ["methods.0.lr=0.005", "methods.0.weight_decay=0", "methods.0.meta_rate=1e-6"]
    method = method_of(experiment(tmp_path, "oho-global", overrides=start).specs[0])
    state, watched = method.init(task, 0), [task.train_batches(1).at(step) for step in range(4)]

    def watched_loss():
        with torch.no_grad():
            return sum(float(task.training_loss(state.model, batch)) for batch in watched)

    before = watched_loss()
    for step in range(STEPS):
        method.advance(state, steps=1, progress=step / STEPS, ledger=Ledger())
        assert math.isfinite(state.train_loss)
        assert all(bool(value.isfinite().all()) for value in state.optimizer.hypergradient.values())
    assert watched_loss() < before
    assert sum(state.optimizer.skipped.values()) == 0
    assert state.hyper["lr"] != [0.005]
