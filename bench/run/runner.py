"""Runs one spec: makes task and method, owns the test split, and writes how the run ended."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench.experiment.spec import Spec, method_of, set_threads, task_of
from bench.process.signals import Interrupted, Stopper
from bench.protocol import Method, Task
from bench.protocol.ledger import COUNTED, Cuda, Ledger
from bench.records import Outcome, RunWriter, Status, StorageError, read_outcome, read_run, run_id
from bench.records.checkpoints import Earlier, discard_checkpoint, resumable
from bench.run.disturbances import Verdict
from bench.run.environment import describe_environment
from bench.run.loop import CHECKPOINT_VERSION, Loop, Progress, Sink
from oho.freed_memory import keep_freed_memory

CHECKPOINT_SECONDS = 10.0
"""Between two checkpoints, at least."""
WARM_UP_STEPS = 3
log = logging.getLogger("oho-bench")


def run(
    spec: Spec,
    root: Path,
    *,
    data_root: Path | None,
    open_sink: Callable[[str, Spec, Path], Sink],
    progress: Progress = lambda fraction, state: None,
    now: Callable[[], float] = time.perf_counter,
    stopper: Stopper | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Outcome:
    """Runs a spec and writes its folder; goes on from its checkpoint, if there is one.  A failure is an outcome too.

    `now` is the ledger's clock, in seconds; `checkpoint_seconds` are between two checkpoints, at least.

    Raises:
        Interrupted: after a signal; the outcome is written, and with it the run can go on.
        StorageError: where the folder cannot be written.
    """
    device, stopper = torch.device(spec["device"]), stopper or Stopper()
    ledger = Ledger(Cuda() if device.type == "cuda" else None, now)
    threads = set_threads(spec)
    torch.backends.cudnn.deterministic = True  # same seed, same run
    keep_freed_memory()
    with stopper.patience():  # but for the set-up: what is made would be lost
        writer, sink, earlier = _opened(root, spec, ledger, open_sink)
        task: Task | None = None
        loop: Loop | None = None
        status, message = Status.FAILED, ""
        stop: BaseException | None = None
        try:
            with stopper.impatience():
                task, test = task_of(spec, device, data_root)
                method = method_of(spec)
                _warm_up(method, task, spec["seed"])
                loop = Loop(method, task, test, spec, ledger, writer, sink, progress)
                loop.start(earlier.content if earlier else None)
            status = loop.until_budget(stopper, checkpoint_seconds)
        except (Interrupted, KeyboardInterrupt) as signal:
            status, stop = Status.INTERRUPTED, signal
            message = "stopped by a signal; the same command goes on with it"
        except StorageError as error:
            sink.close(_outcome(Status.FAILED, str(error), loop, ledger, {}))
            writer.close()
            raise
        except (Exception, SystemExit) as error:
            message = _told(error)
        environment = describe_environment(device, threads, data=task.data if task else None)
        outcome = _outcome(status, message, loop, ledger, environment)
        try:
            writer.close(outcome)
            if status is not Status.INTERRUPTED:
                discard_checkpoint(writer.folder)
        finally:
            sink.close(outcome)
    if stop is not None:
        raise stop
    return outcome


def _opened(
    root: Path, spec: Spec, ledger: Ledger, open_sink: Callable[[str, Spec, Path], Sink]
) -> tuple[RunWriter, Sink, Earlier | None]:
    """The run's folder and its tracker, and what there is to go on from."""
    folder = root / run_id(spec)
    ended = read_outcome(folder)
    if ended and ended.status.is_result:
        discard_checkpoint(folder)  # of a process that was killed between the outcome and its end
    earlier = resumable(folder, CHECKPOINT_VERSION)
    if earlier:
        ledger.resume(earlier.content["seconds"], earlier.lost)
    writer = RunWriter(root, spec, earlier.content["records"] if earlier else 0)
    if writer.cut and (earlier or ended is None):
        log.warning("%s", _what_is_made_again(writer, earlier))
    with ledger.account("tracking"):
        return writer, _sink(open_sink, writer, spec, earlier), earlier


def _what_is_made_again(writer: RunWriter, earlier: Earlier | None) -> str:
    torn = f", {writer.damage}" if writer.damage else ""
    again = f"{writer.cut} {'record is' if writer.cut == 1 else 'records are'} made again{torn}"
    if earlier is None:
        return f"{writer.folder}: starts anew; {again}"
    return f"{writer.folder}: goes on from its checkpoint; {again}, {earlier.lost:.1f} s of work lost"


def _sink(
    open_sink: Callable[[str, Spec, Path], Sink], writer: RunWriter, spec: Spec, earlier: Earlier | None
) -> Sink:
    """W&B cannot go on with an offline run: its files are written anew, from the records."""
    shutil.rmtree(writer.folder / "wandb", ignore_errors=True)
    sink = open_sink(writer.id, spec, writer.folder)
    for record in read_run(writer.folder).records if earlier else ():
        sink.record(dict(record))
    return sink


def _warm_up(method: Method, task: Task, seed: int) -> None:
    """The first steps of a process are slow (thread pools, kernels); they belong to nobody's budget."""
    state = method.init(task, seed)
    method.advance(state, steps=WARM_UP_STEPS, progress=0.0, ledger=Ledger())
    task.evaluate(state.model, task.validation)


def _told(error: BaseException) -> str:
    """The traceback without the home folder.  What was raised is its last line: one line, whatever it was."""
    raised = "".join(traceback.format_exception_only(error))
    frames = "".join(traceback.format_exception(error)).removesuffix(raised)
    home = os.environ.get("HOME") or "~"
    return f"{frames}{' '.join(raised.split())}\n".replace(f"{home}/", "~/")


def _outcome(status: Status, message: str, loop: Loop | None, ledger: Ledger, environment: dict) -> Outcome:
    state, verdict, accounts = loop.state if loop else None, Verdict({}, []), dict(ledger.seconds)
    wall = sum(accounts.values())
    with contextlib.suppress(RuntimeError):  # a device that fails fails at everything it is asked afterwards
        wall = ledger.wall()
        accounts = dict(ledger.seconds)
        verdict = loop.conditions.verdict() if loop else verdict
    return Outcome(
        status=status,
        message=message,
        steps=state.step if state else 0,
        trials=len(state.trials) if state else 0,
        counted_seconds=sum(accounts[name] for name in COUNTED),
        wall_seconds=wall,
        accounts=accounts,
        final=loop.final if loop else {},
        environment=environment,
        conditions={**verdict.readings, "resumptions": loop.resumptions if loop else 0},
        invalid_because=verdict.reasons if loop and loop.unit == "seconds" else [],
        spans_budget=state.spans_budget if state else False,
    )
