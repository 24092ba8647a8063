"""Makes several runs at once, as members of one batch, which takes little longer than one of them alone.

Only their steps and their evaluations are made together.  Each member has its own records, checkpoint, tracker, shocks and
end, as if it were alone; one that diverges leaves, and the others go on.  Their seconds are common: `Outcome.shared_by`
says so.
"""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch

from bench.experiment.spec import Spec, method_of, packages_of, task_of
from bench.process.signals import Interrupted, Stopper
from bench.protocol import Evaluation, Method, Stacked, Task
from bench.protocol.batched import Batched
from bench.protocol.ledger import Cuda, Ledger
from bench.records import Outcome, Status, StorageError, run_id
from bench.run.batch_key import batching_of
from bench.run.disturbances import Conditions
from bench.run.environment import describe_environment
from bench.run.loop import Progress
from bench.run.member import MemberLedger, MemberLoop, of_its_own
from bench.run.pace import Pace
from bench.run.runner import (
    CHECKPOINT_SECONDS,
    STOPPED,
    Folder,
    caught_up_sink,
    close_folder,
    open_folder,
    outcome_of,
    prepare_process,
    warm_up,
)
from bench.run.trailing import Trailing
from bench.tracking.sink import Sink

FILES_AT_ONCE = 16
"""How many members' files are flushed at a time: a disk takes little longer for several than for one."""

log = logging.getLogger("oho-bench")


class Batch:
    """Runs at one step, which advance together."""

    def __init__(self, loops: Sequence[MemberLoop]):
        self._loops = list(loops)
        states = [loop.state for loop in loops]
        self._stacked = Stacked([state.task for state in states], [state.model for state in states])
        self._trainings: Batched = batching_of(loops[0].spec["method"]).build(states, self._stacked)
        self._evaluations: dict[str, list[Evaluation]] = {}
        for loop in loops:
            loop.batch = self

    def advance(self) -> None:
        """Advances all members by some steps, then records what is due after them."""
        first, used = self._loops[0], self._loops[0].used()
        steps = min(loop.chunk(used, loop.due) for loop in self._loops)
        with first.ledger.account("train"), first.conditions.working():
            self._trainings.advance(steps=steps, progress=first.progress_after, ledger=first.ledger)
        self._evaluations.clear()
        for loop in self._loops:
            loop.follow()

    def evaluation(self, loop: MemberLoop, name: str) -> Evaluation:
        """Returns a member's evaluation on its validation or test split, or that of its selected model on the latter.

        The first one who asks has all made.
        """
        if name not in self._evaluations:
            splits = [each.task.validation if name == "validation" else each.test for each in self._loops]
            selected = [each.state.selected_weights() for each in self._loops] if name == "selected" else None
            with self._stacked.holding(selected) if selected else nullcontext():
                self._evaluations[name] = self._stacked.evaluate(splits)
        return self._evaluations[name][self._loops.index(loop)]


class Population:
    """The runs of one batch, from their folders to their outcomes."""

    def __init__(self, specs: Sequence[Spec], root: Path, data_root: Path | None, *, stopper: Stopper, progress: Progress):
        self.specs, self._stopper, self._progress = specs, stopper, progress
        self._root, self._data_root = root, data_root
        self._device = torch.device(specs[0]["device"])
        self.ledger = Ledger(Cuda() if self._device.type == "cuda" else None)
        self._threads = prepare_process(specs[0])
        self._folders: dict[str, Folder] = {}
        """The folders of runs that have not begun yet, by the run's id."""
        self._open: dict[str, MemberLoop] = {}
        """The runs in progress, by their id."""
        self.outcomes: dict[str, Outcome] = {}
        """How runs ended, by their id."""
        self._trackers = Trailing()

    def run(self, open_sink: Callable[[str, Spec, Path], Sink], checkpoint_seconds: float) -> None:
        """Makes all runs.

        Raises:
            Interrupted: after a signal; outcomes are written, and the runs can continue from their checkpoints.
            StorageError: if a folder cannot be written.
            Exception: whatever else ends the batch; the runs without an outcome can be made alone.
        """
        with self._stopper.patience(), self._closing():
            with self._stopper.impatience():
                self._set_up(open_sink)
            pace = Pace(self.ledger, checkpoint_seconds)
            groups = self._of_one_step()
            while groups:
                self._until_budget(groups.pop(0), pace)

    def _set_up(self, open_sink: Callable[[str, Spec, Path], Sink]) -> None:
        first = self.specs[0]
        task, test = task_of(first, self._device, self._data_root)
        environment = describe_environment(
            self._device, self._threads, data=task.data, packages=packages_of(first), engine=task.engine
        )  # fmt: skip
        methods, tasks = [method_of(spec) for spec in self.specs], [of_its_own(task, spec) for spec in self.specs]
        ledgers = [MemberLedger(self.ledger) for _ in self.specs]
        self._open_folders(ledgers)
        self._prepare(methods, tasks)
        warm_up(methods[0], of_its_own(task, first), first["seed"], self._folders[run_id(first)].earlier)
        conditions = Conditions(self._device)
        for spec, method, own_task, ledger in zip(self.specs, methods, tasks, ledgers, strict=True):
            folder = self._folders[identity := run_id(spec)]
            sink = self._trackers.sink(partial(caught_up_sink, open_sink, folder.writer, spec, folder.records()))
            del self._folders[identity]
            loop = MemberLoop(
                method, own_task, test=test, spec=spec, ledger=ledger, writer=folder.writer, sink=sink,
                progress=self._progress, environment=environment, conditions=conditions, shared_by=len(self.specs),
            )  # fmt: skip
            self._open[identity] = loop
            loop.start(folder.earlier.content if folder.earlier else None)

    def _prepare(self, methods: Sequence[Method], tasks: Sequence[Task]) -> None:
        """Has the methods of runs that begin make their long set-up together, if they have one."""
        prepare = batching_of(self.specs[0]["method"]).prepare
        fresh = [index for index, spec in enumerate(self.specs) if self._folders[run_id(spec)].earlier is None]
        if prepare is not None and fresh:
            seeds = [self.specs[index]["seed"] for index in fresh]
            prepare([methods[index] for index in fresh], [tasks[index] for index in fresh], seeds)

    def _open_folders(self, ledgers: Sequence[Ledger]) -> None:
        with ThreadPoolExecutor(FILES_AT_ONCE) as disk:
            opening = [
                disk.submit(open_folder, self._root, spec, ledger) for spec, ledger in zip(self.specs, ledgers, strict=True)
            ]
        opened = [each.result() for each in opening if each.exception() is None]
        self._folders = {folder.writer.id: folder for folder in opened}
        for each in opening:
            each.result()  # raises what kept a folder from being opened

    def _of_one_step(self) -> list[list[MemberLoop]]:
        """Returns the runs by their step, in which those that were killed between two checkpoints differ."""
        by_step: dict[int, list[MemberLoop]] = {}
        for loop in self._open.values():
            by_step.setdefault(loop.state.step, []).append(loop)
        return list(by_step.values())

    def _until_budget(self, loops: list[MemberLoop], pace: Pace) -> None:
        batch = None
        while loops:
            if over := [loop for loop in loops if loop.is_over]:
                self._end([(loop, self._outcome(loop, loop.conclude(), "")) for loop in over])
                loops = [loop for loop in loops if loop not in over]
                batch = None
                continue
            pace.checkpoint(self._stopper, list(self._open.values()))
            if batch is None:
                batch = Batch(loops)
                if self._device.type == "cuda":
                    gc.collect()  # the batch before and its members refer to one another, and would keep memory and graphs
            batch.advance()
            if pace.is_time_to_show():
                _check_in_place(loops)
                loops[0].show(loops[0].used(), self._stopper)

    def _end(self, endings: Sequence[tuple[MemberLoop, Outcome]]) -> None:
        """Writes how runs ended."""
        with ThreadPoolExecutor(FILES_AT_ONCE) as disk:
            closing = [disk.submit(close_folder, loop.writer, outcome) for loop, outcome in endings]
        for loop, outcome in endings:
            self.outcomes[loop.writer.id] = outcome
            del self._open[loop.writer.id]
        for loop, outcome in endings:
            loop.sink.close(outcome)
        for each in closing:
            each.result()  # raises what kept an outcome from being written

    def _outcome(self, loop: MemberLoop, status: Status, message: str) -> Outcome:
        environment = dict(loop.environment)
        return outcome_of(
            status, message, loop.spec, loop=loop, ledger=loop.ledger, environment=environment, earlier=loop.earlier
        )  # fmt: skip

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Closes the runs that are open at the end of the block: those of a batch that was stopped or has failed."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            self._end([(loop, self._outcome(loop, Status.INTERRUPTED, STOPPED)) for loop in self._open.values()])
            raise
        finally:
            for folder in self._folders.values():
                folder.writer.close()
            for loop in self._open.values():
                loop.sink.close(self._outcome(loop, Status.INTERRUPTED, "its batch ended early"))
                loop.writer.close()
            with self.ledger.account("tracking"):
                self._trackers.close()


def _check_in_place(loops: Sequence[MemberLoop]) -> None:
    """Raises `StorageError` if a run's folder was moved.  Its variables end with it: none keeps a run that has ended."""
    for loop in loops:
        loop.writer.check_in_place()


def run_together(
    specs: Sequence[Spec], root: Path, *, data_root: Path | None, open_sink: Callable[[str, Spec, Path], Sink],
    progress: Progress = lambda fraction, state: None, stopper: Stopper | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[Outcome | None]:  # fmt: skip
    """Makes runs as members of one batch and writes their folders; see `bench.run.runner.run`.

    Returns the outcome of each, or None for runs that are left to be made alone because the batch failed; why it did is
    then logged.

    Raises:
        Interrupted: after a signal; outcomes are written, and the runs can continue from their checkpoints.
        StorageError: if a folder cannot be written.
    """
    stopper = stopper or Stopper()
    population = Population(specs, root, data_root, stopper=stopper, progress=progress)
    try:
        population.run(open_sink, checkpoint_seconds)
    except StorageError:
        raise
    except (Exception, SystemExit) as error:
        what = " ".join("".join(traceback.format_exception_only(error)).split())
        log.warning("%s: a batch of %d runs ended early, they continue alone (%s)", root, len(specs), what)
    outcomes = population.outcomes
    del population
    gc.collect()  # a batch and its members refer to one another, and would keep their memory for long
    return [outcomes.get(run_id(spec)) for spec in specs]
