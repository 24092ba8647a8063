"""Commands on a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli.application import Results, app, from_reports, user_errors
from bench.command.command_line import file_name


@app.command()
def status(directory: Results) -> None:
    """Count a results folder's runs by experiment and status, and list the failed ones."""
    with user_errors():
        from bench.command.status import describe
        from bench.records.archive import results_folder

        with results_folder(directory) as folder:
            print(describe(folder, called=directory))


@app.command()
def watch(
    directory: Results,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1 [default: any that is free].")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show a results folder while it is being filled, as a live page that this machine alone can open."""
    with user_errors():
        from bench.command.watch import watch

        watch(directory, lambda root: from_reports("live.api:Live")(root), port=port, opens=open_)


@app.command()
def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `run --storage` keeps the runs.")], directory: Results
) -> None:
    """Copy runs that are kept in a store into a results folder, as far as they have changed."""
    with user_errors(goes_on=True):
        from bench.command.store import pull

        pull(url, directory)


@app.command()
def replay(
    directory: Results,
    budget: Annotated[float, typer.Option(help="In the runs' own unit: counted seconds, plain steps, steps or epochs.")],
    period: Annotated[Optional[float], typer.Option(help="Also use every multiple of this up to the budget.")] = None,
    experiment: Annotated[Optional[str], typer.Option(metavar="NAME", help="Replay the runs of this one alone.")] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Also write a CSV, one row per run.", parser=file_name, metavar="FILE"),
    ] = None,
) -> None:
    """Show what each method would have returned at a smaller budget, without training again."""
    with user_errors():
        if output is not None:
            from_reports("output:check_writable")(output, ".csv")
        table = from_reports("replay:at_budgets")(directory, budget, period, experiment=experiment)
        print(from_reports("replay:describe")(table))
        if output is not None:
            from bench.records.table_files import write_table

            write_table(table, output)


@app.command()
def export(
    directory: Results,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The CSV or Parquet file to write.", parser=file_name, metavar="FILE"),
    ],
    records: Annotated[bool, typer.Option("--records", help="One row per record instead of one row per run.")] = False,
) -> None:
    """Write a results folder as one table: one row per run, or one row per record."""
    with user_errors():
        from_reports("output:check_writable")(output, ".csv", ".parquet")
        from bench.records.frames import results
        from bench.records.table_files import write_table

        write_table(results(directory, records=records), output)
        print(output)


@app.command()
def pack(
    directory: Results,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The archive to write, .tar.xz.", parser=file_name, metavar="FILE"),
    ],
    limit: Annotated[float, typer.Option(min=0, help="The most megabytes that it may have.", metavar="MB")] = 5,
) -> None:
    """Pack what is read of a results folder into one small file, which can stand in the folder's place.

    `report`, `figure`, `dashboard`, `export`, `replay` and `status` take the archive, or a folder that holds one called
    records.tar.xz, as a results folder.  Checkpoints and what trackers keep are left out.
    """
    with user_errors():
        from bench.records.archive import write_archive

        size = write_archive(directory, output, limit=limit)
        print(f"{output}: {size / 1e6:.3g} MB")
