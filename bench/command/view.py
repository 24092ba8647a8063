"""Opens W&B's terminal dashboard on the runs of a results folder that W&B has tracked."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from bench.experiment.yaml_file import ConfigError
from bench.records import experiments_in
from bench.records.json_files import read_object
from bench.records.names import file_name
from bench.records.wandb_names import run_name

TRIAL = re.compile(r"-[0-9a-f]{8}-(\d+)$")
"""How the folder of a trial's W&B run ends: the digits of the run's W&B id and the trial's number."""


def view(root: Path) -> int:
    """Runs `wandb leet` until the user leaves it, and returns its exit code.

    Raises:
        ConfigError: if there is nothing to open, or nothing to open it with.
        RecordError: if the folder holds no experiment.
    """
    experiments_in(root)
    if find_spec("wandb") is None:
        raise ConfigError("view: wandb is not installed (pip install 'oho-bench[bench]')")
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in named_runs(root):  # W&B expects them side by side, and shows the names of folders
            Path(scratch, f"run-{name}").symlink_to(folder.resolve(), target_is_directory=True)
        if not any(Path(scratch).iterdir()):
            raise ConfigError(f"{root}: W&B has tracked no run of it; `oho-bench report {root}` needs none")
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError(f"view: this is no terminal; `oho-bench report {root}` needs none")
        from wandb.util import get_core_path

        return subprocess.run([get_core_path(), "leet", "run", "--no-observability", scratch]).returncode


def named_runs(root: Path) -> Iterator[tuple[str, Path]]:
    """Yields the folders of W&B's files under names that a reader knows; no two are alike."""
    taken: set[str] = set()
    for folder in sorted(root.glob("*/wandb/*run-*")):
        run = folder.parents[1]
        if not (run / "spec.json").exists() or folder.parent.is_symlink() or folder.is_symlink() or not folder.is_dir():
            continue
        name = file_name(run_name(read_object(run / "spec.json", f"remove {run} to run it again")))
        if trial := TRIAL.search(folder.name):
            name += f", trial {trial[1]}"
        if name in taken:
            name += f", {folder.name}"
        taken.add(name)
        yield name, folder
