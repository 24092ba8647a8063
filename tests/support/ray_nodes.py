"""Nodes of a Ray cluster on loopback, each in a session of its own, with a token; ended by their ids alone."""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers import ROOT

SECONDS = 120
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
        self.folder = folder
        self.port = free_ports(1)
        self.address, self.nodes, self.folders, self.hosts = f"127.0.0.2:{self.port}", {}, {}, 2
        (folder / "token").write_text(secrets.token_hex(32))
        self.environment = {
            **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), **environment,
        }  # fmt: skip
        self.start("head", "--head", f"--port={self.port}", "--include-dashboard=false")

    def start(self, name, *words, before=(), cpus=1, **environment):
        """Starts a node and waits until Ray says that it runs."""
        short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets have names of at most 107 characters
        ports = free_ports(40)
        words = words or (f"--address={self.address}",)
        log = self.folder / f"{name}.log"
        command = [
            *before, str(Path(sys.executable).with_name("ray")), "start", *words, "--block", f"--num-cpus={cpus}",
            f"--node-ip-address=127.0.0.{self.hosts}", f"--node-name={name}", f"--temp-dir={short}",
            f"--min-worker-port={ports}", f"--max-worker-port={ports + 39}", "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]  # fmt: skip
        self.hosts += 1
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**self.environment, **environment}, start_new_session=True, cwd="/"
            )
        self.nodes[name], self.folders[name] = process, short
        began = time.monotonic()
        while "--block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < SECONDS, log.read_text()
            time.sleep(0.1)

    def end(self, name):
        """Ends a node as a machine ends that loses its power."""
        process = self.nodes.pop(name)
        for number in processes_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()
        shutil.rmtree(self.folders.pop(name), ignore_errors=True)

    def close(self):
        for name in [*self.nodes]:
            self.end(name)

    def begin(self, *words, address=None, **environment):
        """A command that uses the cluster, while it works."""
        command = [sys.executable, "-m", "bench.cli", "run", *map(str, words), "--launcher", "ray"]
        return subprocess.Popen(
            [*command, "--address", address or self.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env={**self.environment, **environment},
        )  # fmt: skip

    def run(self, *words, **options):
        """A command that uses the cluster, when it has ended: its exit code, output and errors."""
        process = self.begin(*words, **options)
        output, errors = process.communicate(timeout=SECONDS * 2)
        return process.returncode, output, errors


def processes_of(session):
    """The processes of a session, and their descendants, which Ray puts into sessions of their own."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            found[int(path.parent.name)] = int(words[1]), int(words[3])
    ours = {number for number, (_, its) in found.items() if its == session} | {session}
    while more := {number for number, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return ours


def holder_of(run):
    """The process that has claimed a run, which is named by its folder or the end of that, or None."""
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(path.readlink()).endswith(f"{run}/.claim"):
                return int(path.parts[2])
    return None
