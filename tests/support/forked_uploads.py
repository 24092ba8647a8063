"""`wandb sync` as a fork of the test's process, which imports W&B's command line once instead of for each upload."""

import contextlib
import os
import subprocess
from types import SimpleNamespace

import pytest
from forks import Fork

import bench.tracking.wandb_upload


def started(command, *, cwd, env, stdout, **options):
    """What `subprocess.Popen` of `python -m wandb sync` would be."""
    words = command[command.index("wandb") + 1 :]

    def program():
        from wandb.cli.cli import cli

        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        cli(words, prog_name="wandb")

    return Fork(program, output=stdout.fileno(), is_session=True)


@contextlib.contextmanager
def forked_uploads():
    """Uploads of `oho-bench sync` are forks within the block."""
    import wandb.cli.cli  # noqa: F401  before the forks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.tracking.wandb_upload, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": started}))
        yield
