"""Commands that list what there is to name, and fetch data sets."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from bench.cli.application import Root, app, user_errors

data_app = typer.Typer(help="List the data sets and download those that are missing.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command("list")
def list_(
    name: Annotated[
        Optional[str],
        typer.Argument(help="A method, task, data set, figure, space or configuration, or ./FILE.py:NAME, to describe."),
    ] = None,
) -> None:
    """List what configurations and command lines can name, or describe one of these."""
    with user_errors():
        from bench.command.listing import describe, overview

        print(overview() if name is None else describe(name))


@data_app.command("list")
def data_list(root: Root = None) -> None:
    """List the data sets and whether the data root has them."""
    with user_errors():
        from bench.command.listing import data_sets
        from bench.tasks.data_sets import data_root

        print(data_sets(data_root(root)))


@data_app.command("fetch")
def data_fetch(name: str, root: Root = None) -> None:
    """Download a data set into the data root unless it is there."""
    with user_errors():
        from bench.experiment.registries import DATA_SETS
        from bench.experiment.yaml_file import ConfigError
        from bench.tasks.data_sets import data_root, load

        if name not in DATA_SETS:
            raise ConfigError(f"unknown data set {name!r}; allowed: {', '.join(DATA_SETS)}")
        train, test, *_ = load(DATA_SETS[name], root)
        print(f"{name}: {len(train.targets)} training and {len(test.targets)} test examples in {data_root(root)}")
