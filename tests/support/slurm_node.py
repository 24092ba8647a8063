"""Slurm on this machine alone: a controller, a node with two processors, and munge."""

import os
import secrets
import shutil
import socket
import subprocess
import sys

from guarded import Guarded
from held_runs import HOLD, held
from helpers import ROOT
from processes import until
from ray_nodes import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun")

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={next_port}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def is_installed():
    """Whether this machine can have a Slurm of its own."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in PROGRAMS)


class Slurm:
    """A Slurm that takes jobs until it is closed."""

    def __init__(self):
        self.guarded = Guarded("slurm-")
        self.folder, self.servers = self.guarded.folder, []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self):
        (self.folder / "state").mkdir()
        key, port = self.folder / "munge.key", free_ports(2)
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(folder=self.folder, port=port, next_port=port + 1, host=host)
        (self.folder / "slurm.conf").write_text(text)
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}
        self.environment |= {HOLD: str(self.folder / "hold"), **self.guarded.mark("slurm")}
        files = [f"--{name}={self.folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._server("munged", "--foreground", "--force", f"--key-file={key}", *files)
        until((self.folder / "munge.socket").exists, seconds=300)
        self._server("slurmctld", "-D")
        self._server("slurmd", "-D")
        until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), seconds=300)

    def _server(self, *words):
        with (self.folder / f"{words[0]}.out").open("wb") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file, env=self.environment, start_new_session=True)
        self.servers.append(process)

    def close(self):
        """Ends Slurm, its jobs, and commands that still use it."""
        self.guarded.close()
        for process in self.servers:
            process.wait()

    def ask(self, *words):
        """What a program of Slurm says."""
        return subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=300).stdout

    def held(self):
        """Holds the runs of `held_runs` for a block."""
        return held(self.folder / "hold")

    def begin(self, *words):
        """A command that uses Slurm, while it works."""
        command = [sys.executable, "-m", "bench.cli", "run", *map(str, words), "--launcher", "slurm"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.environment
        )

    def run(self, *words):
        """A command that uses Slurm, when it has ended: its exit code, output and errors."""
        process = self.begin(*words)
        output, errors = process.communicate(timeout=400)
        return process.returncode, output, errors
