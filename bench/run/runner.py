"""Runs one spec: makes task and method, owns the test split, and writes how the run ended."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.experiment.spec import Spec, method_of, packages_of, set_threads, task_of
from bench.process.signals import Interrupted, Stopper
from bench.protocol import Method, Task
from bench.protocol.checkpoints import Earlier, discard_checkpoint, resumable
from bench.protocol.ledger import COUNTED, Cuda, Ledger
from bench.records import Outcome, RunWriter, Status, StorageError, read_outcome, read_run, run_id
from bench.records.processes import Process, disturbances
from bench.records.schema import TIMED
from bench.run.environment import describe_environment, finished_now
from bench.run.loop import CHECKPOINT_VERSION, Loop, Progress
from bench.run.plain_steps import disturbed_calibration, plain_step
from bench.tracking.sink import Sink
from bench.tracking.wandb_runs import forget_identity
from oho.freed_memory import keep_freed_memory

CHECKPOINT_SECONDS = 10.0
"""The least number of seconds between two checkpoints."""
WARM_UP_STEPS = 3
STOPPED = "stopped by a signal; repeat the command to continue"
"""The message of runs that a signal has stopped."""
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
    """Runs a spec and writes its folder, continuing from its checkpoint if there is one.  A failure is an outcome too.

    `now` is the ledger's clock, in seconds; `checkpoint_seconds` is the least number of seconds between two checkpoints.

    Raises:
        Interrupted: after a signal; the outcome is written, and the run can continue from its checkpoint.
        StorageError: if the folder cannot be written.
    """
    stopper = stopper or Stopper()
    ledger = Ledger(Cuda() if torch.device(spec["device"]).type == "cuda" else None, now)
    threads = prepare_process(spec)
    with stopper.patience():  # leaving at once would lose work, except during the set-up
        work = _Work(spec, open_folder(root, spec, ledger), ledger=ledger, threads=threads, open_sink=open_sink)
        try:
            with stopper.impatience():
                loop = work.set_up(data_root=data_root, progress=progress, now=now)
            status, message = loop.until_budget(stopper, checkpoint_seconds), ""
        except (Interrupted, KeyboardInterrupt):
            work.end(Status.INTERRUPTED, STOPPED)
            raise
        except StorageError as error:
            work.abandon(str(error))
            raise
        except (Exception, SystemExit) as error:
            status, message = Status.FAILED, traceback_of(error)
        return work.end(status, message)


class _Work:
    """One process's work on a run: what is open, and what is known of the run so far."""

    def __init__(self, spec: Spec, folder: Folder, *, ledger: Ledger, threads: int,
                 open_sink: Callable[[str, Spec, Path], Sink]):  # fmt: skip
        self._spec, self._folder, self._ledger, self._threads = spec, folder, ledger, threads
        self._sink = open_tracker(folder, spec, ledger, open_sink)
        self._device = torch.device(spec["device"])
        self._environment = describe_environment(self._device, threads, data=None)
        self._loop: Loop | None = None

    def set_up(self, *, data_root: Path | None, progress: Progress, now: Callable[[], float]) -> Loop:
        """Returns the loop, at the run's first step or where an earlier process left it."""
        spec, earlier = self._spec, self._folder.earlier
        task, test = task_of(spec, self._device, data_root)
        method = method_of(spec)
        self._environment = describe_environment(
            self._device, self._threads, data=task.data, packages=packages_of(spec), engine=task.engine
        )
        warm_up(method, task, spec["seed"], earlier)
        plain = _plain_step(task, spec, earlier, now)
        self._loop = Loop(
            method, _selecting(task, spec, plain), test=test, spec=spec, ledger=self._ledger, writer=self._folder.writer,
            sink=self._sink, progress=progress, environment=self._environment, plain_step=plain,
        )  # fmt: skip
        self._loop.start(earlier.content if earlier else None)
        return self._loop

    def end(self, status: Status, message: str) -> Outcome:
        """Writes how the run ended, and returns that."""
        outcome = self._outcome(status, message)
        try:
            close_folder(self._folder.writer, outcome)
        finally:
            self._sink.close(outcome)
        return outcome

    def abandon(self, why: str) -> None:
        """Closes what is open where the folder can no longer be written."""
        self._sink.close(self._outcome(Status.FAILED, why))
        self._folder.writer.close()

    def _outcome(self, status: Status, message: str) -> Outcome:
        earlier = self._folder.earlier
        return outcome_of(
            status, message, self._spec, loop=self._loop, ledger=self._ledger, environment=self._environment,
            earlier=earlier.content["processes"] if earlier else [],
        )  # fmt: skip


def prepare_process(spec: Spec) -> int:
    """Sets what is the same for all of a process's work on a run, and returns the number of threads."""
    torch.backends.cudnn.deterministic = True  # same seed, same run
    keep_freed_memory()
    return set_threads(spec)


class Folder(NamedTuple):
    """A run's folder, open for writing, with the checkpoint to continue from if there is one."""

    writer: RunWriter
    earlier: Earlier | None

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Returns the records of the processes that worked on the run before this one."""
        return read_run(self.writer.folder).records if self.earlier else ()


def open_folder(root: Path, spec: Spec, ledger: Ledger) -> Folder:
    """Opens the run's folder and adds the seconds of its checkpoint, if there is one, to the ledger."""
    folder = root / run_id(spec)
    ended = read_outcome(folder)
    if ended and ended.status.is_result:
        discard_checkpoint(folder)  # left by a process that was killed between writing the outcome and its end
    earlier = resumable(folder, CHECKPOINT_VERSION)
    if earlier:
        ledger.resume(earlier.content["seconds"], earlier.lost)
    writer = RunWriter(root, spec, earlier.content["records"] if earlier else 0)
    if writer.cut and (earlier or ended is None):
        log.warning("%s", _what_is_redone(writer, earlier))
    if ended and not earlier:
        forget_identity(folder)
    return Folder(writer, earlier)


def open_tracker(opened: Folder, spec: Spec, ledger: Ledger, open_sink: Callable[[str, Spec, Path], Sink]) -> Sink:
    """Opens the tracker of a run whose folder is open."""
    with ledger.account("tracking"):
        return caught_up_sink(open_sink, opened.writer, spec, opened.records())


def _what_is_redone(writer: RunWriter, earlier: Earlier | None) -> str:
    torn = f", {writer.damage}" if writer.damage else ""
    redone = f"redoes {writer.cut} {'record' if writer.cut == 1 else 'records'}{torn}"
    if earlier is None:
        return f"{writer.folder}: starts over and {redone}"
    return f"{writer.folder}: continues from its checkpoint and {redone}; {earlier.lost:.1f} s of work lost"


def close_folder(writer: RunWriter, outcome: Outcome) -> None:
    """Writes how a run ended, and removes its checkpoint if it will not continue."""
    writer.close(outcome)
    if outcome.status is not Status.INTERRUPTED:
        discard_checkpoint(writer.folder)


def caught_up_sink(
    open_sink: Callable[[str, Spec, Path], Sink], writer: RunWriter, spec: Spec, earlier: Sequence[Mapping[str, Any]]
) -> Sink:
    """Opens a run's sink and sends it the earlier records: W&B cannot continue an offline run."""
    files = writer.folder / "wandb"
    if files.is_symlink() or not files.is_dir():
        files.unlink(missing_ok=True)  # what a link leads to is not ours
    shutil.rmtree(files, ignore_errors=True)
    sink = open_sink(writer.id, spec, writer.folder)
    for record in earlier:
        sink.record(dict(record))
    sink.caught_up()
    return sink


def warm_up(method: Method, task: Task, seed: int, earlier: Earlier | None = None) -> None:
    """Makes a process's first steps, which are slow (thread pools, kernels), so that no budget pays for them.

    Where a run continues, its method first takes back what a long set-up has found.
    """
    if earlier is not None and hasattr(method, "recall"):
        method.recall(seed, earlier.content["method"])
    state = method.init(task, seed)
    method.advance(state, steps=WARM_UP_STEPS, progress=0.0, ledger=Ledger())
    task.evaluate(state.model, task.validation)


def _plain_step(
    task: Task, spec: Spec, earlier: Earlier | None, now: Callable[[], float]
) -> dict[str, float] | None:
    """Returns what a plain step takes, if the budget is in plain steps; a run that continues keeps what it began with."""
    if spec["budget"]["unit"] != "plain_steps":
        return None
    return earlier.content["plain_step"] if earlier else plain_step(task, spec, now)


def _selecting(task: Task, spec: Spec, plain: dict[str, float] | None) -> Task:
    """Returns the task with its selection period in counted seconds, if the spec has one."""
    every = spec["task"].get("selection_every")
    if every is None:
        return task
    seconds = every["seconds"] if plain is None else every["plain_steps"] * plain["seconds"]
    return replace(task, selection_seconds=seconds)


def traceback_of(error: BaseException) -> str:
    """Returns the traceback without the home folder.  Its last line is the error, in one line whatever it was."""
    raised = "".join(traceback.format_exception_only(error))
    frames = "".join(traceback.format_exception(error)).removesuffix(raised)
    home = os.environ.get("HOME") or "~"
    return f"{frames}{' '.join(raised.split())}\n".replace(f"{home}/", "~/")


def outcome_of(
    status: Status, message: str, spec: Spec, *, loop: Loop | None, ledger: Ledger, environment: dict[str, Any],
    earlier: list[Process],
) -> Outcome:  # fmt: skip
    """Returns how a run ended, with what is known of it by then."""
    state, process, accounts = loop.state if loop else None, None, dict(ledger.seconds)
    wall = sum(accounts.values())
    with contextlib.suppress(RuntimeError):  # after one failure, a device fails at everything
        wall = ledger.wall()
        accounts = dict(ledger.seconds)
        process = loop.process(has_ended=True) if loop else None
    plain = loop.plain_step if loop else None
    reasons = [*disturbed_calibration(plain), *disturbances([*earlier, process] if process else earlier)]
    return Outcome(
        status=status,
        message=message,
        steps=state.step if state else 0,
        trials=len(state.trials) if state else 0,
        counted_seconds=sum(accounts[name] for name in COUNTED),
        wall_seconds=wall,
        accounts=accounts,
        final=loop.final if loop else {},
        environment=finished_now(environment),
        conditions={**(process["conditions"] if process else {}), "resumptions": len(earlier)},
        invalid_because=reasons if spec["budget"]["unit"] in TIMED else [],
        disturbed_because=reasons,
        earlier=earlier,
        shared_by=loop.shared_by if loop else 1,
        spans_budget=state.spans_budget if state else False,
        random_starts=state.random_starts if state else 0,
        plain_step=plain,
    )
