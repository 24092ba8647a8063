"""`oho-bench run` works in a child process.  If that is killed or crashes, its run has failed, and the others continue.

A system that is short of memory kills the process that uses most, and a killed process cannot report that itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench.command.handover import Journal
from bench.process.orphans import die_with
from bench.process.signals import WATCHED, handling, held, release_signals, tell
from bench.process.stopped_parent import can_be_seen
from bench.process.surroundings import neutral

RENEW = 75
"""The exit code by which a child asks to be replaced by another one."""
CHILD = "import sys; sys.path.append(sys.argv.pop(1)); from bench.__main__ import main; main()"
ROOT = str(Path(__file__).parents[2])


def supervise(words: Sequence[str], out: Path) -> int:
    """Carries out a command line in a child process, replaces the child when it dies, and returns the exit code."""
    journal, relay = Journal.new(), Relay()
    journal.note("parent", os.getpid())
    words = [words[0], f"--journal={journal.descriptor}", *words[1:]]
    with relay.listening():
        while True:
            before = len(journal.tried)
            try:
                code = relay.run(words, journal.descriptor)
            except OSError as error:
                tell(f"oho-bench: no process can be started ({error.strerror}); repeat the command when one can be")
                return 1
            is_renewed = code == RENEW and len(journal.tried) > before
            if code >= 0 and not is_renewed:
                return 1 if code == RENEW else code
            if stop := relay.asked or (-code if -code in WATCHED else None):
                if not journal.last("told"):
                    tell("\noho-bench: stopped; repeat the command to continue")
                return 128 + stop
            if not is_renewed and not blame_a_run(journal, -code, out):
                return 128 - code


def blame_a_run(journal: Journal, number: int, out: Path) -> bool:
    """Reports and notes in which run the process died; returns whether it was in one."""
    if batch := journal.batch:
        tell(f"oho-bench: {death_by(number)}; the {len(batch)} runs that were made together are now made alone")
        journal.note("out")
        journal.note("apart", *batch)
        return True
    run = journal.present
    if run is None:
        tell(f"oho-bench: {death_by(number)}; no run was in progress; repeat the command to continue")
        return False
    journal.note("out")
    journal.note("died", run, number)
    tell(f"oho-bench: {out / run}: {death_by(number)}; the other runs continue")
    return True


def death_by(number: int) -> str:
    """Returns in words how a process died that died of the signal."""
    name = next((known.name for known in signal.Signals if known == number), f"signal {number}")
    return f"killed by {name}, as systems do when memory is short" if number == signal.SIGKILL else f"crashed with {name}"


class Relay:
    """A relay that passes this process's signals on to its current child; `asked` is the first of them.

    The child runs in a session of its own and gets no other signals: a terminal sends Ctrl-C to whole groups of processes.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._child: subprocess.Popen | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the block."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, nobody learns how a child ended
        with handling({**dict.fromkeys(WATCHED, self._forward), signal.SIGTSTP: self._pause}):
            yield

    def run(self, words: list[str], descriptor: int) -> int:
        """Runs a child that starts with the signals held and inherits the descriptor.

        Returns its exit code, or minus the number of the signal that it died of.
        """
        with held():  # a signal that comes meanwhile is for the new child, too
            if self.asked:
                return -self.asked  # the signal came before the child
            command = [sys.executable, "-P", "-c", CHILD, ROOT, *words]
            self._child = subprocess.Popen(
                command, env=neutral(os.environ), start_new_session=True, pass_fds=[descriptor]
            )
        return self._child.wait()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if self._child is not None:
            self._child.send_signal(number)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Stops this process.  The child waits as soon as it sees that; if it cannot see it, it is stopped, too."""
        blind = None if can_be_seen() else self._child
        if blind is not None:
            blind.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if blind is not None:
            blind.send_signal(signal.SIGCONT)  # this process has been continued


def begin_child(descriptor: int) -> Journal:
    """Prepares a child process and returns its journal.

    On Linux the child dies with its parent; elsewhere it works on and keeps its claim.  Raises OSError or ValueError if the
    descriptor is not that of a journal.
    """
    journal = Journal(descriptor)
    parent = journal.last("parent")
    if parent is None:
        raise ValueError("no journal")
    os.set_inheritable(descriptor, False)
    die_with(int(parent))
    release_signals()
    return journal
