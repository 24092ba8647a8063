"""Shared by all tests: no network, W&B offline and inside temporary folders, one thread a process."""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
"""Read by torch when it is imported, here and in the commands that tests start: other threads would wait for a core."""


@pytest.fixture(autouse=True)
def private_wandb(tmp_path, monkeypatch):
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "wandb").mkdir()
    yield
    assert "WANDB_API_KEY" not in os.environ


@pytest.fixture(scope="session", autouse=True)
def short_speed_probe():
    """Runs take a fifth of a second to say how fast the machine is, which no test asks."""
    from bench.run import disturbances

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disturbances, "PROBE_SIZE", 8)
        yield


@pytest.fixture(scope="session")
def mnist_root():
    """The data root, if it holds MNIST."""
    from bench.experiment.registries import DATA_SETS
    from bench.tasks.data_sets import data_root

    root = data_root(None)
    if not DATA_SETS["mnist"].present(root):
        pytest.skip(f"no MNIST under {root}; set OHO_DATA or `oho-bench data fetch mnist`")
    return root
