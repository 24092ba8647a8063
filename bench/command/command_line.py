"""How words of the command line are read: seeds, devices, folders, and a wrong line, which is answered with one."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

MOST_SEEDS, LONGEST_SEED = 100_000, 15
"""How many on a command line, and digits of one."""
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the library beneath typer, which not all versions of typer name alike."""


class OneLineGroup(TyperGroup):
    """Tells a wrong command line in one line."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """As the library's, which tells it in four."""
        exits = options.get("standalone_mode", True)
        try:
            code = super().main(*arguments, **{**options, "standalone_mode": False})
        except UsageError as error:
            command, said = error.ctx.command_path if error.ctx else self.name, error.format_message()
            if "\n" not in said:  # else it is the whole help
                said = f"oho-bench: {said.rstrip('.')}; `{command} --help` tells what is allowed"
            print(said, file=sys.stderr)
            code = error.exit_code
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
                raise
            print(f"oho-bench: standard output cannot be written ({error.strerror})", file=sys.stderr)
            code = 1
        if exits:
            sys.exit(code)
        return code


def folder_name(text: str) -> Path:
    """An empty one is a variable that is not set."""
    if not text:
        raise typer.BadParameter("the name of a folder is expected (given '')")
    return Path(text)


def check_readable_again(configs: Sequence[Path]) -> None:
    """What is no regular file can be read once, by the process that was given it: the command reads in one of its own."""
    for path in configs:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise typer.BadParameter(f"{path}: a regular file is expected; --in-process reads a pipe, too")


def parse_seeds(text: str | None) -> list[int] | None:
    """`0,1,4` or `0-9` or a mixture; None stays None."""
    from bench.experiment.yaml_file import ConfigError

    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last) if dash else (first,)
        if not all(number.isdecimal() and len(number) <= LONGEST_SEED for number in numbers):
            raise ConfigError(f"--seeds {text}: expected whole numbers such as 0,1,4 or a range such as 0-9")
        more = range(int(first), int(last or first) + 1)
        if len(seeds) + len(more) > MOST_SEEDS:
            raise ConfigError(f"--seeds {text}: more than {MOST_SEEDS:,} seeds")
        seeds += more
    if not seeds:
        raise ConfigError(f"--seeds {text}: the range is empty")
    return list(dict.fromkeys(seeds))


def resolve_device(name: str) -> str:
    """`auto` is a GPU where there is one."""
    import torch

    from bench.experiment.yaml_file import ConfigError

    if name not in ("cpu", "cuda", "auto"):
        raise ConfigError(f"--device {name}: allowed: cpu, cuda, auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no usable GPU on this machine; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
