"""Opens W&B's terminal dashboard on the offline runs of a results folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from bench.experiment.yaml_file import ConfigError
from bench.records import experiments_in


def view(root: Path) -> int:
    """Runs `wandb leet` until the user leaves it, and returns its exit code.

    Raises:
        ConfigError: if there is nothing to open, or nothing to open it with.
    """
    experiments_in(root)
    runs = [path for path in sorted(root.glob("*/wandb/*run-*")) if path.is_dir() and not path.parent.is_symlink()]
    if not runs:
        raise ConfigError(f"{root}: holds no run that W&B tracked; `oho-bench report {root}` and `export` need none")
    if find_spec("wandb") is None:
        raise ConfigError("view: wandb is not installed (pip install 'oho-bench[bench]')")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("view: needs a terminal; `oho-bench status` and `export` do not")
    with tempfile.TemporaryDirectory() as scratch:
        for path in runs:  # W&B expects the runs of a folder side by side
            Path(scratch, path.name).symlink_to(path.resolve(), target_is_directory=True)
        command = [sys.executable, "-P", "-m", "wandb", "leet", "run", scratch]
        return subprocess.run(command, env={**os.environ, "WANDB_ERROR_REPORTING": "false"}).returncode
