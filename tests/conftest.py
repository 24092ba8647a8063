"""Shared by all tests: no network, W&B offline and inside temporary folders, one thread a process."""

import gc
import os

import pytest

gc.disable()

os.environ["OMP_NUM_THREADS"] = "1"
"""Read by torch when it is imported, here and in the commands that tests start: other threads would wait for a core."""


def pytest_collection_finish():
    """What was imported stays: to look for garbage in it costs a fifth of the time of importing it, and later more."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def private_wandb(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("wandb"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield


@pytest.fixture(autouse=True)
def no_key_is_left():
    yield
    assert "WANDB_API_KEY" not in os.environ


@pytest.fixture(scope="session", autouse=True)
def short_speed_probe():
    """Runs take a fifth of a second to say how fast the machine is, which no test asks."""
    from bench.run import disturbances

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disturbances, "PROBE_SIZE", 8)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """Every file of a run waits some milliseconds until the disk has it, which only a loss of power could make matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
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
