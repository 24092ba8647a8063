"""Workers that are forks of the test's process, which has imported all they need."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import torch

from bench.command import worker


class Forked:
    """What `subprocess.Popen` would be of a worker."""

    def __init__(self, words):
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
                if descriptor > 2 and descriptor != words[0]:
                    with suppress(OSError):
                        os.close(descriptor)  # the other ends of other workers' pipes among them
            torch.set_num_threads(1)
            try:
                worker.main(*words)
            finally:
                os._exit(0)

    def wait(self, timeout=None):
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
