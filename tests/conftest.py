"""Shared by all tests: no network, W&B offline and inside temporary folders."""

import os

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def private_wandb(tmp_path, monkeypatch):
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "wandb").mkdir()
    yield
    assert "WANDB_API_KEY" not in os.environ


@pytest.fixture(scope="session")
def mnist_root():
    """The data root, if it holds MNIST."""
    from bench.experiment.registries import DATA_SETS
    from bench.tasks.data_sets import data_root

    root = data_root(None)
    if not DATA_SETS["mnist"].present(root):
        pytest.skip(f"no MNIST under {root}; set OHO_DATA or `oho-bench data fetch mnist`")
    return root
