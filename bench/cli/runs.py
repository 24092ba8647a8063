"""Commands that make runs, or examine a method or a run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated, Optional

import typer

from bench.cli.application import Root, app, user_errors
from bench.command.command_line import WORDS, check_readable_again, folder_name, population_overrides, seeds_of
from bench.process.signals import tell


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
    workers: Annotated[
        Optional[int],
        typer.Option(min=1, help="Make runs that are not timed side by side, in N processes [default: 1].", metavar="N"),
    ] = None,
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

        overrides = [*(set_ or ()), *population_overrides(population)]
        nodes = Nodes(
            address=address, per_gpu=per_gpu, cpus_per_run=cpus_per_run, array_parallelism=array_parallelism,
            job_minutes=job_minutes, sbatch=sbatch or None, wait=wait, storage=storage, workers=workers,
        )  # fmt: skip
        order = Order(
            configs, overrides=overrides, seeds=chosen, device=device, out=out, data_root=root,
            again_invalid=again_invalid, figure=figure, launcher=launcher, nodes=nodes,
        )  # fmt: skip
        try:
            failed = work(order, journal=journal, dry_run=dry_run)
        except Interrupted:
            journal.note("told", "stopped")  # by `user_errors`
            raise
    if failed:
        runs = "run" if failed == 1 else "runs"
        tell(f"oho-bench: {failed} {runs} failed; `oho-bench status {out}` lists them, the same command repeats them")
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
