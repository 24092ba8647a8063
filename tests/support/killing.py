"""Runs specs to their end, killing them again and again.

Every spec is first run undisturbed, into FOLDER/whole.  Then a child is forked that runs it into FOLDER/killed, with a
checkpoint after nearly every chunk of steps, and is sent SIGKILL so many times before it may end: every other time at a
random moment of all its time, which is mostly set-up, else soon after a random one of its records.
"""

import os
import random
import signal
import time

import torch._dynamo  # noqa: F401  which the first optimizer of each child would import, for seconds

import bench.run.pace
from bench.records import read_run, run_id
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

CLOCKS = ("counted_seconds", "wall_seconds")


def in_child(spec, folder):
    """A child that runs the spec."""
    child = os.fork()
    if child == 0:
        try:
            bench.run.pace.CHECKPOINT_SHARE = 10.0
            run(spec, folder, data_root=None, open_sink=lambda *a: NoSink(), checkpoint_seconds=0.0)
        finally:
            os._exit(0)
    return child


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_record(child, path, *, chance, total):
    """Until the run has written a random one of the records it lacks, and a little longer; or has ended."""
    wanted = chance.randint(min(lines_in(path) + 1, total), total)
    while lines_in(path) < wanted and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.05))


def killed(spec, folder, *, kills, longest, total, chance):
    """Kills the run again and again; returns how often it was still at work."""
    hit = 0
    for turn in range(kills):
        child = in_child(spec, folder)
        if turn % 2:
            time.sleep(chance.uniform(0, longest))
        else:
            wait_for_record(child, folder / run_id(spec) / "records.jsonl", chance=chance, total=total)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        hit += os.WIFSIGNALED(status)
    os.waitpid(in_child(spec, folder), 0)
    return hit


def seen(folder, spec):
    found = read_run(folder / run_id(spec))
    records = [{key: value for key, value in record.items() if key not in CLOCKS} for record in found.records]
    final = {key: value for key, value in found.outcome.final.items() if key not in CLOCKS}
    return found.outcome, [records, final, str(found.outcome.status), found.outcome.steps, found.outcome.trials]


def ends(specs, folder, *, kills, seed):
    """Yields how often each run was killed, how often it went on from a checkpoint, and whether it is as if undisturbed."""
    chance = random.Random(seed)
    for spec in specs:
        begun = time.monotonic()
        os.waitpid(in_child(spec, folder / "whole"), 0)
        longest = time.monotonic() - begun
        total = lines_in(folder / "whole" / run_id(spec) / "records.jsonl")
        hit = killed(spec, folder / "killed", kills=kills, longest=longest, total=total, chance=chance)
        _, whole = seen(folder / "whole", spec)
        outcome, found = seen(folder / "killed", spec)
        accounts = abs(sum(outcome.accounts.values()) - outcome.wall_seconds) < 1e-6
        yield {
            "method": spec["method"]["name"], "killed": hit, "resumed": outcome.conditions["resumptions"],
            "same": found == whole, "accounts": accounts,
            "files": sorted(path.name for path in (folder / "killed" / run_id(spec)).iterdir()),
        }  # fmt: skip
