"""Methods that are trained without a runner: specs with other options, and states after some steps."""

from dataclasses import replace

import torch
from helpers import experiment

from bench.experiment.spec import method_of, task_of
from bench.protocol import Split
from bench.protocol.ledger import Ledger

CPU = torch.device("cpu")


def first_spec(folder, method, **options):
    spec = experiment(folder, method).specs[0]
    return {**spec, "method": {**spec["method"], **options}}


def method_and_task(spec, *, dtype=torch.float32):
    """The method of a spec, and its task on the CPU, in another type if one is given."""
    task, _ = task_of(spec, CPU, None)
    if dtype != torch.float32:
        splits = {
            name: Split(split.inputs.to(dtype), split.targets)
            for name, split in (("train", task.train), ("validation", task.validation))
        }
        make = task.make_model
        task = replace(task, **splits, make_model=lambda: make().to(dtype))
    return method_of(spec), task


def advanced(method, state, step):
    while state.step < step and not state.diverged:
        method.advance(state, steps=step - state.step, progress=0.0, ledger=Ledger())
    return state


def trained(spec, steps, **options):
    method, task = method_and_task(spec, **options)
    return method, advanced(method, method.init(task, spec["seed"]), steps)
