"""How words of the command line are read: seeds, devices, folders, and a wrong line, which is answered with one."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

WORDS = "oho-bench.words"
"""What a command was called with, in the `meta` of its context."""
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the library beneath typer, which not all versions of typer name alike."""


class OneLineGroup(TyperGroup):
    """Answers a wrong command line in one line, and keeps the words it was called with."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """As the library's, with the words in the context: `app([...])` is called with others than the process."""
        words = list(args)
        context = super().make_context(info_name, args, *rest, **extra)
        context.meta[WORDS] = words
        return context

    def main(self, *arguments: Any, **options: Any) -> Any:
        """As the library's, which answers in four lines."""
        exits = options.get("standalone_mode", True)
        try:
            code = super().main(*arguments, **{**options, "standalone_mode": False})
        except UsageError as error:
            command, said = error.ctx.command_path if error.ctx else self.name, error.format_message()
            if "\n" not in said:  # else it is the whole help
                said = f"oho-bench: {said.rstrip('.')}; `{command} --help` shows what is allowed"
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


def seeds_of(text: str | None) -> tuple[int, ...] | None:
    """Returns the seeds that `--seeds` asks for; None stays None.  Raises `ConfigError`."""
    from bench.experiment.seeds import parse_seeds
    from bench.experiment.yaml_file import ConfigError

    try:
        return None if text is None else parse_seeds(text)
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: {error}") from None


def resolve_device(name: str) -> str:
    """`auto` is a GPU where there is one."""
    import torch

    from bench.experiment.yaml_file import ConfigError

    if name not in ("cpu", "cuda", "auto"):
        raise ConfigError(f"--device {name}: allowed: cpu, cuda, auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no usable GPU on this machine; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
