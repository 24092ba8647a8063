"""Nodes of a Ray cluster on loopback, with a token; those of others are left alone."""

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from guarded import Guarded
from held_runs import HOLD, held
from helpers import ROOT

SECONDS = 300
FIRST_PORT, LAST_PORT = 21_000, 31_000


def free_ports(count):
    """The first of so many ports in a row that are free."""
    while True:
        first = random.randrange(FIRST_PORT, LAST_PORT - count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("", port)))
            return first


class Cluster:
    """A head at `address` with one processor, and the nodes that join it."""

    def __init__(self, folder, **environment):
        self.folder, self.guarded = folder, Guarded("ray-")  # Ray's sockets have names of at most 107 characters
        self.port = free_ports(1)
        self.address, self.nodes, self.hosts = f"127.0.0.2:{self.port}", {}, 2
        (folder / "token").write_text(secrets.token_hex(32))
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), HOLD: str(folder / "hold"), **environment,
        }  # fmt: skip
        try:
            self.start("head", "--head", f"--port={self.port}", "--include-dashboard=false")
        except BaseException:
            self.close()
            raise

    def start(self, name, *words, before=(), cpus=1, **environment):
        """Starts a node and waits until Ray says that it runs."""
        ports = free_ports(40)
        while self.port in range(ports, ports + 40):  # Ray refuses its head's own, which is free until the head has it
            ports = free_ports(40)
        words = words or (f"--address={self.address}",)
        log = self.folder / f"{name}.log"
        command = [
            *before, str(Path(sys.executable).with_name("ray")), "start", *words, "--block", f"--num-cpus={cpus}",
            f"--node-ip-address=127.0.0.{self.hosts}", f"--node-name={name}", f"--temp-dir={self.temporary(name)}/ray",
            f"--min-worker-port={ports}", f"--max-worker-port={ports + 39}", "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]  # fmt: skip
        self.hosts += 1
        marked = {**self.environment, **environment, **self.guarded.mark(name)}
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=marked, start_new_session=True, cwd="/")
        self.nodes[name] = process
        began = time.monotonic()
        while "--block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < SECONDS, log.read_text()
            time.sleep(0.1)

    def temporary(self, name):
        """What is for a node what /tmp is for a machine."""
        return self.guarded.folder / name

    def processes(self, name):
        """The processes of a node."""
        return self.guarded.processes(name)

    def end(self, name):
        """Ends a node as a machine ends that loses its power."""
        self.guarded.end(name)
        self.nodes.pop(name).wait()
        shutil.rmtree(self.temporary(name))

    def close(self):
        """Ends all nodes, and commands that still use them."""
        self.guarded.close()
        for process in self.nodes.values():
            process.wait()

    def held(self):
        """Holds the runs of `held_runs` for a block."""
        return held(self.folder / "hold")

    def begin(self, *words, address=None, **environment):
        """A command that uses the cluster, while it works."""
        command = [sys.executable, "-m", "bench.cli", "run", *map(str, words), "--launcher", "ray"]
        return subprocess.Popen(
            [*command, "--address", address or self.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env={**self.environment, **environment, **self.guarded.mark("command")},
        )  # fmt: skip

    def run(self, *words, **options):
        """A command that uses the cluster, when it has ended: its exit code, output and errors."""
        process = self.begin(*words, **options)
        output, errors = process.communicate(timeout=SECONDS)
        return process.returncode, output, errors


def holder_of(run):
    """The process that has claimed a run, which is named by its folder or the end of that, or None."""
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(path.readlink()).endswith(f"{run}/.claim"):
                return int(path.parts[2])
    return None
