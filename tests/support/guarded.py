"""Processes that end with the test that started them: however it ends, and whatever becomes of their parents.

Servers put processes into sessions of their own and outlive whoever started them.  So all that a test starts carries a mark
in its environment, and a guard, which waits until the test's process is gone or has asked it, ends what carries the mark.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "OHO_BENCH_TEST_SERVER"
"""The environment variable whose value is the folder of a server and, after a slash, its name."""


class Guarded:
    """A temporary folder with a short name, for servers that each have a name."""

    def __init__(self, prefix):
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.folder.chmod(0o755)
        self._guard = subprocess.Popen(
            [sys.executable, __file__, str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )

    def mark(self, name):
        """The part of a server's environment by which its processes are known."""
        return {MARK: f"{self.folder}/{name}/"}

    def processes(self, name):
        """The processes of a server."""
        return marked(f"{self.folder}/{name}/")

    def end(self, name):
        """Ends a server as a machine ends that loses its power."""
        end_marked(f"{self.folder}/{name}/")

    def close(self):
        """Ends all servers and removes the folder."""
        self._guard.communicate()


def end_marked(mark):
    """Kills processes whose mark begins so, until there are none."""
    while found := marked(mark):
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def marked(mark):
    """The processes whose mark begins so, and those that belong to them: some overwrite their environment."""
    wanted, ours, others = f"\0{MARK}={mark}".encode(), set(), {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                others[int(path.name)] = int(parent), int(session)
                if wanted in b"\0" + (path / "environ").read_bytes():
                    ours.add(int(path.name))
    while more := {number for number, above in others.items() if ours.intersection(above)} - ours:
        ours |= more
    return ours


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_marked(f"{sys.argv[1]}/")
    shutil.rmtree(sys.argv[1], ignore_errors=True)
