"""Reads the words of a command line (seeds, devices, folders) and answers a wrong command line in one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from bench.process.signals import tell
from bench.process.standard_streams import UNWRITABLE, discard_output, flush
from bench.records.errors import one_line
from bench.records.files import reason

SHOWN = 40
"""How much of a name that is refused is shown."""
WORDS = "oho-bench.words"
"""The key in the `meta` of a command's context under which its words are kept."""
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""The usage error of the library beneath typer, which typer's versions name differently."""


class OneLineGroup(TyperGroup):
    """A group of commands that answers a wrong command line in one line and keeps the words that it was given."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Makes the library's context with the words, since `app([...])` may be called with others than the process."""
        words = list(args)
        context = super().make_context(info_name, args, *rest, **extra)
        context.meta[WORDS] = words
        return context

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Runs the library's `main`, and answers in one line where the library would use four."""
        exits = options.get("standalone_mode", True)
        try:
            code = super().main(*arguments, **{**options, "standalone_mode": False})
        except UsageError as error:
            command, said = error.ctx.command_path if error.ctx else self.name, error.format_message()
            if "\n" not in said:  # otherwise it is the whole help
                said = f"oho-bench: {said.rstrip('.')}; `{command} --help` shows what is allowed"
            tell(said)
            code = error.exit_code
            flush()
        except OSError as error:
            code = 1
            if error.filename is not None:
                tell(f"oho-bench: {one_line(str(error.filename))}: {reason(error)}")
            elif error.errno in UNWRITABLE:
                discard_output()
                if error.errno != errno.EPIPE:  # a reader such as `head` that has seen enough is no error
                    tell(f"oho-bench: standard output cannot be written ({reason(error)})")
            else:
                raise
        if exits:
            sys.exit(code)
        return code


def folder_name(text: str) -> Path:
    """Returns a folder's path; an empty text, from a variable that is not set, is a mistake."""
    return _path(text, "folder")


def file_name(text: str) -> Path:
    """Returns the path of a file to write."""
    return _path(text, "file")


def _path(text: str, what: str) -> Path:
    """Returns a path that the system can have, whether or not anything is there.  Raises a usage error."""
    problem = None if text else ""
    try:
        Path(text).stat()
    except ValueError as error:
        problem = f", {error}"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            problem = f"..., a name of {len(text):,} characters, which are too many"
    if problem is not None:
        raise typer.BadParameter(f"the name of a {what} is expected (given {text[:SHOWN]!r}{problem})")
    return Path(text)


def check_readable_again(configs: Sequence[Path]) -> None:
    """Raises an error for a file that can be read only once, such as a pipe, because a child process reads it again."""
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


def population_overrides(text: str | None) -> list[str]:
    """Returns what `--population` overrides in a file: nothing for None.  Raises `ConfigError`."""
    from bench.experiment.schema import as_population
    from bench.experiment.yaml_file import ConfigError

    try:
        return [] if text is None else [f"population={as_population(int(text) if text.isdecimal() else text)}"]
    except ValueError as error:
        raise ConfigError(f"--population {text}: {error}") from None


def check_device(name: str) -> None:
    """Raises `ConfigError` for anything but cpu, cuda and auto."""
    from bench.experiment.yaml_file import ConfigError

    if name not in ("cpu", "cuda", "auto"):
        raise ConfigError(f"--device {name}: allowed: cpu, cuda, auto")


def resolve_device(name: str) -> str:
    """Returns cpu or cuda; `auto` stands for the GPU if there is one."""
    import torch

    from bench.experiment.yaml_file import ConfigError

    check_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "on this machine" if chosen is None else f"among those that CUDA_VISIBLE_DEVICES={chosen} leaves"
        raise ConfigError(f"--device cuda: no usable GPU {where}; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
