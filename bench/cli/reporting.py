"""Commands that draw what a results folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli.application import AllowMixed, Results, app, from_reports, user_errors
from bench.command.command_line import file_name


@app.command()
def report(
    directory: Results,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The PDF to write.", parser=file_name, metavar="FILE")
    ] = Path("report.pdf"),
    track: Annotated[bool, typer.Option("--track", help="Also make it a W&B run: figures, results, artifacts.")] = False,
    entity: Annotated[Optional[str], typer.Option(help="W&B user or team [default: W&B's own].")] = None,
    project: Annotated[Optional[str], typer.Option(help="W&B project [default: as tracked, else oho-bench].")] = None,
    allow_mixed: AllowMixed = False,
) -> None:
    """Build the PDF report, the page (.html) and the figures (in a folder of that name) from a results folder.

    Figures of a plug-in are code that the folder keeps or names, and it is run.  A figure that fails has one line in its
    place, and the exit code is then 1.
    """
    with user_errors():
        from bench.experiment.yaml_file import ConfigError

        if (entity or project) and not track:
            raise ConfigError("report: --entity and --project say where to track it; add --track")
        built = from_reports("api:build_report")(directory, output, allow_mixed=allow_mixed)
        for path in built.files:
            print(path)
        if track:
            from bench.command.tracked_report import track_report

            print(track_report(directory, built.files, entity=entity, project=project))
    if built.failed:
        raise typer.Exit(1)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="A figure's name; see `oho-bench list`.")],
    directory: Results,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="The PDF, PNG or SVG to write.", parser=file_name, metavar="FILE"),
    ] = None,
    experiment: Annotated[
        Optional[str], typer.Option("--experiment", help="Show one alone of the experiments that feed it.", metavar="NAME")
    ] = None,
    column: Annotated[bool, typer.Option("--column", help="Draw it as wide as one of two columns, 3.3 inches.")] = False,
    allow_mixed: AllowMixed = False,
) -> None:
    """Draw one figure as PDF, PNG and SVG, with its data as CSV beside them."""
    with user_errors():
        from bench.experiment.yaml_file import ConfigError

        if not directory.exists() and Path(name).is_dir():
            raise ConfigError(f"figure {name}: the figure's name comes first: oho-bench figure {directory} {name}")
        build_figure = from_reports("api:build_figure")
        options = {"experiment": experiment, "column": column, "allow_mixed": allow_mixed}
        for path in build_figure(name, directory, output, **options):
            print(path)


@app.command()
def dashboard(
    directory: Results,
    entity: Annotated[Optional[str], typer.Option(help="W&B user or team [default: W&B's own].")] = None,
    project: Annotated[Optional[str], typer.Option(help="W&B project [default: as tracked, else oho-bench].")] = None,
    preview: Annotated[
        Optional[Path],
        typer.Option("--preview", help="Draw the workspaces as one HTML page.", parser=file_name, metavar="FILE"),
    ] = None,
    json: Annotated[
        Optional[Path],
        typer.Option("--json", help="Write what would be published.", parser=file_name, metavar="FILE"),
    ] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Write the workspaces and the report to W&B.")] = False,
) -> None:
    """Make W&B dashboards: a workspace for each experiment and a report, with the order and colours of our figures.

    The preview shows the folder's own data and needs no account.  What is published again replaces itself.
    """
    with user_errors():
        from bench.experiment.yaml_file import ConfigError

        if (preview is not None) + (json is not None) + publish != 1:
            raise ConfigError("dashboard: give one of --preview FILE, --json FILE and --publish")
        if preview is not None:
            from_reports("dashboard.api:preview_dashboards")(directory, preview)
            print(preview)
        elif json is not None:
            from_reports("dashboard.api:write_views")(directory, json, entity=entity, project=project)
            print(json)
        else:
            from bench.tracking.publishing import publish_views

            views = from_reports("dashboard.api:views")(directory, entity=entity, project=project)
            for address in publish_views(views, entity=entity):
                print(address)
