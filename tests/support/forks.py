"""Commands that are forks of the test's process: they are processes as others are, but have imported all they need."""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from bench.cli import app
from bench.command.supervisor import ROOT
from bench.process.signals import WATCHED

START = subprocess.Popen


class Fork:
    """What `subprocess.Popen` would be of a program, here a function, whose standard error is piped if that is asked for.

    The process has no descriptors but the standard streams, the second of which is `output`, and those that it is given.
    """

    def __init__(self, program, *, descriptors=(), output=None, is_piped=False, is_session=False):
        reading, writing = os.pipe() if is_piped else (None, 2 if output is None else output)
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            become(program, writing, output=output, descriptors=descriptors, is_session=is_session)
        if is_piped:
            os.close(writing)
            self.stderr = os.fdopen(reading)

    def _look(self, how):
        """Notes how the process has ended, if it has; a handler of signals may have seen that before."""
        with suppress(ChildProcessError):
            process, status = os.waitpid(self.pid, how)
            if process:
                self.returncode = os.waitstatus_to_exitcode(status)

    def poll(self):
        if self.returncode is None:
            self._look(os.WNOHANG)
        return self.returncode

    def wait(self, timeout=None):
        if timeout is None and self.returncode is None:
            self._look(0)
        began = time.monotonic()
        while self.poll() is None:
            if time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout=None):
        """Standard output, which is nobody's, and standard error; a watchdog for what hangs is pytest's."""
        with self.stderr as stream:
            told = stream.read()
        self.wait(timeout)
        return None, told

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def become(program, standard_error, *, output=None, descriptors=(), is_session=False):
    """Carries out the program in this process, which has just been forked, and ends it."""
    code = 1
    try:
        if is_session:
            os.setsid()
        _forget_pytest(output, standard_error, descriptors)
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _forget_pytest(output, standard_error, descriptors):
    """Takes from this process the handlers of signals and logs, the streams and the descriptors that pytest has set."""
    signal.set_wakeup_fd(-1)
    for number in (*WATCHED, signal.SIGTSTP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, given in enumerate((nothing, nothing if output is None else output, standard_error)):
        os.dup2(given, number)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in descriptors:
            with suppress(OSError):
                os.close(number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    logging.getLogger().handlers.clear()


def start_worker(command, *, pass_fds, **options):
    """The process that works for a command, as `subprocess.Popen` would start it."""
    words = command[command.index(ROOT) + 1 :]
    return Fork(lambda: _work(words), descriptors=pass_fds, is_session=True)


def _work(words):
    subprocess.Popen = START
    app(words, prog_name="oho-bench")


def carry_out(words):
    """The whole of a command, in a process of its own; the one that works for it is a fork, too."""
    subprocess.Popen = start_worker
    app([*map(str, words)], prog_name="oho-bench")
