"""The command line.  Heavy modules are imported inside the commands, so that `--help` is immediate."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bench.command.command_line import WORDS, OneLineGroup, check_readable_again, file_name, folder_name, seeds_of
from bench.process.signals import tell
from bench.process.standard_streams import open_closed
from bench.process.surroundings import begin

app = typer.Typer(
    name="oho-bench",
    cls=OneLineGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="List the data sets and download those that are missing.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Root = Annotated[
    Optional[Path],
    typer.Option(
        "--root", help="Folder of the data sets [default: $OHO_DATA, else data/].", parser=folder_name, metavar="DIR"
    ),
]
Results = Annotated[Path, typer.Argument(metavar="DIR", parser=folder_name)]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Draw seconds of unlike devices beside each other; the figures say so.")
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


@app.command()
def run(
    context: typer.Context,
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG...", help="Experiments: YAML files, or shipped ones such as quick/distribution."),
    ],
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    out: Annotated[Path, typer.Option(help="Results folder.", parser=folder_name, metavar="DIR")] = Path("runs"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    seeds: Annotated[Optional[str], typer.Option(help="Seeds instead of the file's, such as 0,1,4 or 0-9.")] = None,
    figure: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Run only the experiments that feed this figure.")
    ] = None,
    root: Root = None,
    population: Annotated[
        Optional[str], typer.Option(metavar="N", help="Train at most N runs as one batch; or auto, off.")
    ] = None,
    again_invalid: Annotated[
        bool, typer.Option("--again-invalid", help="Also rerun runs whose clock was disturbed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the runs and the total budget.")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Work in this process, for debuggers: it does not survive a crash.")
    ] = False,
    launcher: Annotated[
        str, typer.Option(help="Where runs are made: local, ray for the nodes of a cluster, or slurm for jobs.")
    ] = "local",
    address: Annotated[
        Optional[str], typer.Option(metavar="HOST:PORT", help="The head of the Ray cluster [default: auto].")
    ] = None,
    per_gpu: Annotated[
        Optional[int], typer.Option(min=1, help="Runs that share a GPU, if they are not timed [default: 1].")
    ] = None,
    cpus_per_run: Annotated[
        Optional[int], typer.Option(min=1, help="Processors that each run has on its node [default: its threads].")
    ] = None,
    array_parallelism: Annotated[
        Optional[int], typer.Option(min=1, help="Slurm: the most jobs of an array that run at the same time.")
    ] = None,
    job_minutes: Annotated[
        Optional[int], typer.Option(min=3, help="Slurm: a job's time; a longer run joins the queue again [default: 60].")
    ] = None,
    sbatch: Annotated[
        Optional[list[str]], typer.Option(metavar="KEY=VALUE", help="Slurm: an option of sbatch, such as partition=gpu.")
    ] = None,
    wait: Annotated[
        Optional[bool], typer.Option("--wait/--no-wait", help="Slurm: wait for the jobs, or only submit [default: wait].")
    ] = None,
    storage: Annotated[
        Optional[str], typer.Option(metavar="URL", help="Keep the runs of ray or slurm there, such as s3://bucket/folder.")
    ] = None,
    descriptor: Annotated[Optional[int], typer.Option("--journal", hidden=True)] = None,
) -> None:
    """Run experiments, except for runs that the results folder already holds."""
    from bench.command.handover import Journal
    from bench.command.supervisor import RENEW, begin_child, supervise

    if descriptor is None and not (dry_run or in_process):
        check_readable_again(configs)
        raise typer.Exit(supervise(context.meta[WORDS], out))
    try:
        journal = Journal.new() if descriptor is None else begin_child(descriptor)
    except (OSError, ValueError):
        raise typer.BadParameter("--journal: only the command itself may set this option") from None
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    with user_errors(goes_on=True, device_lost=1 if descriptor is None else RENEW):
        chosen = seeds_of(seeds)  # before what takes seconds to import
        from bench.command.run_command import Nodes, Order, work
        from bench.process.signals import Interrupted

        overrides = [*(set_ or ()), *([f"population={population}"] if population else [])]
        nodes = Nodes(address, per_gpu, cpus_per_run, array_parallelism, job_minutes, sbatch or None, wait, storage)
        order = Order(configs, overrides, chosen, device, out, root, again_invalid, figure, launcher, nodes)
        try:
            failed = work(order, journal=journal, dry_run=dry_run)
        except Interrupted:
            journal.note("told", "stopped")  # by `user_errors`
            raise
    if failed:
        runs = "run" if failed == 1 else "runs"
        tell(f"oho-bench: {failed} {runs} failed; `oho-bench status {out}` lists them")
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name; its file is NAME.yaml.")],
    task: Annotated[str, typer.Option(help="The task to train; `oho-bench list` lists the tasks.")] = "digits-mlp",
) -> None:
    """Write a first configuration, which can be run at once and explains each of its keys."""
    with user_errors():
        from bench.command.new_experiment import write_new

        print(write_new(name, task))


@app.command()
def status(directory: Results) -> None:
    """Count a results folder's runs by experiment and status, and list the failed ones."""
    with user_errors():
        from bench.command.status import describe

        print(describe(directory))


@app.command()
def watch(
    directory: Results,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1 [default: any that is free].")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show a results folder while it is being filled, as a live page that this machine alone can open."""
    with user_errors():
        from bench.command.watch import watch

        watch(directory, lambda root: _reports("live.api:Live")(root), port=port, opens=open_)


@app.command()
def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `run --storage` keeps the runs.")], directory: Results
) -> None:
    """Copy runs that are kept in a store into a results folder, as far as they have changed."""
    with user_errors(goes_on=True):
        from bench.command.store import pull

        pull(url, directory)


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
def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of one run, RESULTS/ID.", parser=folder_name)],
    steps: Annotated[int, typer.Option(help="How many steps to audit.")] = 20,
    at: Annotated[
        Optional[int], typer.Option(help="The last step to audit [default: the run's last, or the last before a shock].")
    ] = None,
    root: Root = None,
) -> None:
    """Repeat a run's last steps in float64 and compare its hypergradient with that of reverse mode."""
    with user_errors():
        from bench.command.audit import audit_run

        print(audit_run(run, steps=steps, at=at, data_root=root))


@app.command()
def check(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="./FILE.py:NAME, package.module:NAME or a name.")],
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="Set one of its options.")] = None,
    task: Annotated[str, typer.Option(help="The task to check the method on.")] = "digits-mlp",
) -> None:
    """Check on small runs that a method of your own keeps the rules that every method must keep."""
    with user_errors():
        from bench.command.check import check

        if check(method, set_ or (), task):
            raise typer.Exit(1)


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
        built = _reports("api:build_report")(directory, output, allow_mixed=allow_mixed)
        for path in built.files:
            print(path)
        if track:
            from bench.command.tracked_report import track_report

            print(track_report(directory, built.files, entity=entity, project=project))
    if built.failed:
        raise typer.Exit(1)


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
            _reports("dashboard.api:preview_dashboards")(directory, preview)
            print(preview)
        elif json is not None:
            _reports("dashboard.api:write_views")(directory, json, entity=entity, project=project)
            print(json)
        else:
            from bench.tracking.publishing import publish_views

            views = _reports("dashboard.api:views")(directory, entity=entity, project=project)
            for address in publish_views(views, entity=entity):
                print(address)


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
        from bench.command.sweep import Order, sweep_text, write_sweep

        order = Order(config, method, seed, set_ or (), root)
        text, left_out = sweep_text(order, name=name, trials=trials, results=out)
        if output is None:
            print(text, end="")
        else:
            write_sweep(output, text)
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

        order = Order(config, method, seed, set_ or (), root, device)
        outcome = train_trial(Trial(order, parameters, out, place_in(os.environ)))
    if outcome is not None and not outcome.status.is_result:
        raise typer.Exit(1)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="A figure's name; see `oho-bench list`.")],
    directory: Results,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="The PDF, PNG or SVG to write.", parser=file_name, metavar="FILE"),
    ] = None,
    column: Annotated[bool, typer.Option("--column", help="Draw it as wide as one of two columns, 3.3 inches.")] = False,
    allow_mixed: AllowMixed = False,
) -> None:
    """Draw one figure as PDF, PNG and SVG, with its data as CSV beside them."""
    with user_errors():
        for path in _reports("api:build_figure")(name, directory, output, column=column, allow_mixed=allow_mixed):
            print(path)


@app.command()
def replay(
    directory: Results,
    budget: Annotated[float, typer.Option(help="In the runs' own unit: counted seconds, plain steps, steps or epochs.")],
    period: Annotated[Optional[float], typer.Option(help="Also use every multiple of this up to the budget.")] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Also write a CSV, one row per run.", parser=file_name, metavar="FILE"),
    ] = None,
) -> None:
    """Show what each method would have returned at a smaller budget, without training again."""
    with user_errors():
        if output is not None:
            _reports("output:check_writable")(output, ".csv")
        table = _reports("replay:at_budgets")(directory, budget, period)
        print(_reports("replay:describe")(table))
        if output is not None:
            from bench.records.frames import write_table

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
        _reports("output:check_writable")(output, ".csv", ".parquet")
        from bench.records.frames import results, write_table

        write_table(results(directory, records=records), output)
        print(output)


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


def _reports(place: str) -> Any:
    """Returns the object `module:NAME` of `reports`; a string names it, so that `bench` does not import `reports`."""
    from bench.experiment.registries import imported

    return imported(f"reports.{place}")


@contextlib.contextmanager
def user_errors(*, goes_on: bool = False, device_lost: int = 1) -> Iterator[None]:
    """Turns exceptions into one line and an exit code.

    The code is 2 after a user's mistake, 1 if a folder cannot be written, a cluster is lost or a figure fails, and
    130, 143 or 129 after a signal.
    `goes_on` says that the command continues its work when it is repeated; `device_lost` is the exit code after a GPU
    failed.
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


if __name__ == "__main__":
    open_closed()
    begin()
    app()
