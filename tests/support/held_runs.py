"""Runs that last as long as a test needs: they go slowly while a file is there, and then as fast as they can."""

from contextlib import contextmanager

from helpers import write_config

HOLD = "OHO_BENCH_TEST_HOLD"
"""The environment variable whose value is the file."""
LONG = "budget.steps=4000"
"""Seconds on an idle machine, but three minutes while they are held; a checkpoint is written every ten seconds."""

METHOD = f"""\
import dataclasses, os, time
from pathlib import Path
from baselines.training import FIXED, Training

class Held(Training):
    def advance(self, state, **given):
        until = time.monotonic() + 0.5
        while time.monotonic() < until and Path(os.environ.get("{HOLD}", "/none")).exists():
            time.sleep(0.02)
        super().advance(state, **given)

HELD = dataclasses.replace(FIXED, label="Held", build=Held, batching=None)
"""


def write_held(folder):
    """The configuration of an experiment of such runs."""
    config = write_config(folder, "fixed")
    (folder / "held.py").write_text(METHOD)
    config.write_text(config.read_text().replace("{name: fixed}", "{name: ./held.py:HELD}"))
    return config


@contextmanager
def held(file):
    """Holds runs for the block."""
    file.touch()
    try:
        yield
    finally:
        file.unlink()
