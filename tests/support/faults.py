"""What the tests of faults share."""

import weakref

import torch
from typer.testing import CliRunner

from baselines.training import Training
from bench.cli import app
from bench.command.planning import plan
from bench.command.run_series import launch
from bench.records import read_run

PLACES = ("counted_seconds", "wall_seconds")


def timeless(folder):
    """The records of a run, clocks apart."""
    return [{k: v for k, v in record.items() if k not in PLACES} for record in read_run(folder).records]


def outcome_of(experiments, root, **options):
    return launch(experiments, plan(experiments, root), root, data_root=None, **options)


def command(*arguments, **options):
    """The command line in this process, which has imported all it needs."""
    words = [*map(str, arguments), *(["--in-process"] if arguments[0] == "run" else [])]
    return CliRunner().invoke(app, words, **options)


def the_line(answer, code):
    """What a command said: one line, and the exit code."""
    assert answer.exit_code == code, answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("oho-bench: ")]
    assert "Traceback" not in answer.stderr
    return line


def told(caplog):
    """Our own warnings: W&B logs things, too."""
    return [entry.message for entry in caplog.records if entry.name == "oho-bench"]


class Hoard:
    """Raises what CUDA's allocator does, after some steps, in runs of one seed; keeps an eye on what the run holds."""

    def __init__(self, seed, steps=20):
        self.seed, self.steps, self.seen, self.plain = seed, steps, [], Training.advance

    def advance(self, method, state, **options):
        if state.seed == self.seed and state.step >= self.steps:
            self.seen.append(weakref.ref(state.model))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 is full.")
        return self.plain(method, state, **options)
