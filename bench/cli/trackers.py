"""Commands for Weights & Biases."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli.application import Results, Root, app, user_errors
from bench.command.command_line import file_name, folder_name
from bench.process.signals import tell


@app.command()
def sync(
    directory: Results,
    project: Annotated[Optional[str], typer.Option(help="W&B project [default: as tracked, else oho-bench].")] = None,
    entity: Annotated[Optional[str], typer.Option(help="W&B user or team [default: W&B's own].")] = None,
    recreate: Annotated[bool, typer.Option("--recreate", help="Upload the records even if W&B's own files exist.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be uploaded.")] = False,
) -> None:
    """Upload a results folder's ended runs to Weights & Biases, except for those already there."""
    with user_errors(goes_on=True):
        from bench.tracking.sync import Options, sync

        if not sync(directory, Options(project, entity, recreate, dry_run)):
            raise typer.Exit(1)


@app.command()
def view(directory: Results) -> None:
    """Open W&B's dashboard for the terminal, `wandb leet`, on a results folder's runs.  It needs no account."""
    with user_errors():
        from bench.command.view import view

        code = view(directory)
    raise typer.Exit(code)


@app.command("import-wandb")
def import_wandb(
    source: Annotated[
        str, typer.Argument(metavar="PATH|ENTITY/PROJECT", help="W&B's files, a folder with such files, or a project.")
    ],
    out: Annotated[Path, typer.Option(help="The new results folder.", parser=folder_name, metavar="DIR")],
) -> None:
    """Make a results folder of what W&B keeps: its files or, with your key, a project on its server."""
    with user_errors():
        from bench.tracking.wandb_import import import_wandb

        for line in import_wandb(source, out):
            print(line, flush=True)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment with the search.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="The search: its name or, of several, its label.")],
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="The seed of all trials [default: the file's first].")] = None,
    trials: Annotated[
        Optional[int], typer.Option(min=1, help="The most trials [default: as many as the search's budget holds].")
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="The sweep's name in W&B.")] = None,
    out: Annotated[Path, typer.Option(help="Results folder.", parser=folder_name, metavar="DIR")] = Path("runs"),
    root: Root = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="The file to write [default: print it].", parser=file_name, metavar="FILE"),
    ] = None,
) -> None:
    """Write the W&B sweep that equals an experiment's random or Bayesian search."""
    with user_errors():
        from bench.command.sweep import Order, sweep_text
        from bench.records.files import write_named

        order = Order(config, method, seed=seed, overrides=set_ or (), data_root=root)
        text, left_out = sweep_text(order, name=name, trials=trials, results=out)
        if output is None:
            print(text, end="")
        else:
            write_named(output, text)
            print(output)
        for line in left_out:
            tell(f"oho-bench: {line}")


@app.command()
def agent(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment with the search.")],
    parameters: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="The parameters that W&B chose.")],
    method: Annotated[str, typer.Option(metavar="NAME", help="The search: its name or, of several, its label.")],
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="The trial's seed [default: the file's first].")] = None,
    out: Annotated[Path, typer.Option(help="Results folder.", parser=folder_name, metavar="DIR")] = Path("runs"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    root: Root = None,
) -> None:
    """Train one trial of a sweep, as `wandb agent` asks; see `oho-bench sweep`."""
    import os

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with user_errors(goes_on=True):
        from bench.command.agent import Trial, place_in, train_trial
        from bench.command.sweep import Order

        order = Order(config, method, seed=seed, overrides=set_ or (), data_root=root, device=device)
        outcome = train_trial(Trial(order, parameters, out, place_in(os.environ)))
    if outcome is not None and not outcome.status.is_result:
        raise typer.Exit(1)
