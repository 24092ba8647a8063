"""The application, its one-line errors, and what several commands share.  Heavy modules are imported inside commands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bench.command.command_line import OneLineGroup, folder_name
from bench.process.signals import tell

app = typer.Typer(
    name="oho-bench",
    cls=OneLineGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Root = Annotated[
    Optional[Path],
    typer.Option(
        "--root", help="Folder of the data sets [default: $OHO_DATA, else data/].", parser=folder_name, metavar="DIR"
    ),
]
Results = Annotated[Path, typer.Argument(metavar="DIR", parser=folder_name)]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Draw seconds of unlike devices or engines together; the figures say so.")
]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from bench.records import PROTOCOL

        print(f"oho-bench {version('oho-bench')}, protocol {PROTOCOL}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and the protocol.")
    ] = False,
) -> None:
    """Hyperparameter optimization during training: OHO, schedules and searches under equal budgets."""


def from_reports(place: str) -> Any:
    """Returns the object `module:NAME` of `reports`; a string names it, so that `bench` does not import `reports`."""
    from bench.experiment.registries import imported

    return imported(f"reports.{place}")


@contextlib.contextmanager
def user_errors(*, goes_on: bool = False, device_lost: int = 1) -> Iterator[None]:
    """Turns exceptions into one line and an exit code.

    The code is 2 after a user's mistake, 1 if a folder cannot be written, a cluster is lost or a figure fails, and 130,
    143 or 129 after a signal.  `goes_on` says that the command continues its work when it is repeated; `device_lost` is
    the exit code after a GPU failed.
    """
    from bench.experiment.yaml_file import ConfigError
    from bench.process.signals import Interrupted
    from bench.records.errors import (
        BrokenFigureError,
        ClusterError,
        DataError,
        DeviceLostError,
        RecordError,
        ReportError,
        StorageError,
    )
    from bench.records.plugins import PluginError

    try:
        yield
    except (ConfigError, DataError, PluginError, RecordError, ReportError) as error:
        tell(f"oho-bench: {error}")
        raise typer.Exit(1 if isinstance(error, BrokenFigureError) else 2) from None
    except (ClusterError, StorageError, DeviceLostError) as error:
        tell(f"oho-bench: {error}")
        raise typer.Exit(device_lost if isinstance(error, DeviceLostError) else 1) from None
    except (KeyboardInterrupt, Interrupted) as signal:
        tell(f"\noho-bench: stopped{'; repeat the command to continue' if goes_on else ''}")
        raise typer.Exit(128 + signal.number if isinstance(signal, Interrupted) else 130) from None
