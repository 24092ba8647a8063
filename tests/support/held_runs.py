"""Runs that last as long as a test needs: they go slowly while a file is there, and then as fast as they can."""

from contextlib import contextmanager

from helpers import write_config

HOLD = "OHO_BENCH_TEST_HOLD"
"""The environment variable whose value is the file."""
LONG = "budget.steps=1000"
"""A second on an idle machine, but three minutes while they are held; a checkpoint is written every ten seconds."""

METHOD = f"""\
import dataclasses, os, time
from pathlib import Path
from baselines.training import FIXED, Training

def wait():
    until = time.monotonic() + 2.0
    while time.monotonic() < until and Path(os.environ.get("{HOLD}", "/none")).exists():
        time.sleep(0.02)

class Held(Training):
    def advance(self, state, **given):
        wait()
        super().advance(state, **given)

class HeldTogether(FIXED.batching.build):
    def advance(self, **given):
        wait()
        super().advance(**given)

HELD = dataclasses.replace(FIXED, label="Held", build=Held, batching=None)
BATCHED = dataclasses.replace(HELD, batching=dataclasses.replace(FIXED.batching, build=HeldTogether))
"""


def write_held(folder, name="HELD"):
    """The configuration of an experiment of such runs; those of BATCHED are trained together."""
    config = write_config(folder, "fixed")
    (folder / "held.py").write_text(METHOD)
    config.write_text(config.read_text().replace("{name: fixed}", f"{{name: ./held.py:{name}}}"))
    return config


@contextmanager
def held(file):
    """Holds runs for the block."""
    file.touch()
    try:
        yield
    finally:
        file.unlink()
