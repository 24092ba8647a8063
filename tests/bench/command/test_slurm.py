"""Runs as jobs: in processes that submitit starts here and, where Slurm is installed, in a Slurm of our own."""

import os
import re
import signal

import pytest
from faults import timeless
from held_runs import HOLD, LONG, write_held
from helpers import experiment, oho_bench, run_one, write_config
from processes import records_in, until

from bench.command import queued
from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.queued import FOLDER, OnQueue
from bench.command.slurm_queue import SlurmQueue
from bench.experiment.expansion import load_experiment
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, read_outcome, run_id

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
submitit = pytest.importorskip("submitit")

from ray_nodes import holder_of  # noqa: E402
from slurm_node import Slurm, is_installed  # noqa: E402


@pytest.fixture(scope="module")
def slurm():
    if not is_installed():
        pytest.skip("Slurm is not installed here, or this is not root")
    slurm = Slurm()
    yield slurm
    slurm.close()


@pytest.fixture(scope="module")
def as_undisturbed(tmp_path_factory):
    """Whether a run has ended with the records that a single process gives."""
    folder, made = tmp_path_factory.mktemp("twins"), set()

    def compare(spec, out, *, resumptions):
        name = run_id(spec)
        if name not in made:
            run_one(spec, folder)
            made.add(name)
        outcome = read_outcome(out / name)
        assert outcome.status is Status.BUDGET_REACHED
        assert outcome.conditions["resumptions"] == resumptions
        assert timeless(out / name) == timeless(folder / name)
        return True

    return compare


def the_spec(config, *overrides):
    (spec,) = load_experiment(config, overrides=overrides).specs
    return spec


def begun(run):
    until(lambda: (run / CHECKPOINT).exists() and holder_of(run), seconds=300)
    return holder_of(run)


class ProcessesHere(SlurmQueue):
    """Jobs as processes of this machine, which submitit starts and, after SIGUSR2, starts again."""

    def __init__(self, act=lambda job: None):
        self._submitit, self._common, self.jobs, self.act = submitit, common(), {}, act

    def has_gpus(self):
        return False

    def _executor(self, folder, resources):
        executor = submitit.LocalExecutor(folder, max_num_timeout=5)
        executor.update_parameters(timeout_min=10)
        plain = executor.map_array

        def kept(*arguments):
            found = plain(*arguments)
            self.jobs |= {job.job_id: job for job in found}
            return found

        executor.map_array = kept
        return executor

    def look(self, jobs):
        self.act(self)
        return {job: "here" for job in jobs if job in self.jobs and not self.jobs[job].done()}


def common():
    from importlib.metadata import version

    from bench.command.node_task import hash_of_code
    from bench.command.slurm_queue import CODE

    return {"version": version("oho-bench"), "code": hash_of_code(CODE)}


def launched(small, out, queue):
    launcher = OnQueue(queue, None, True)
    return launcher.launch([small], plan([small], out), out, data_root=None, journal=Journal.new())


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(queued, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(queued, "GONE_SECONDS", 1.0)


@pytest.fixture
def held_here(tmp_path, monkeypatch):
    """The file that holds the runs of processes which this one starts."""
    monkeypatch.setenv(HOLD, str(tmp_path / "hold"))
    return tmp_path / "hold"


def held_experiment(folder):
    return load_experiment(write_held(folder), overrides=[LONG])


def test_submitit_runs_have_the_records_of_runs_made_here(at_once, tmp_path, as_undisturbed):
    small, out = experiment(tmp_path, "fixed", "adam"), tmp_path / "runs"
    assert launched(small, out, ProcessesHere()) == {Status.BUDGET_REACHED: 2}
    assert all(as_undisturbed(spec, out, resumptions=0) for spec in small.specs)


def test_a_job_whose_time_is_over_continues_from_the_newest_checkpoint(at_once, held_here, tmp_path, as_undisturbed):
    small, out, seen = held_experiment(tmp_path), tmp_path / "runs", []
    run = out / run_id(small.specs[0])

    def end_twice(queue):
        """Sends the signal to two processes in turn, each after it has made a record."""
        process, count = holder_of(run), len(records_in(run))
        if process and len(seen) < 2 and count > (seen[-1] if seen else 1):
            os.kill(process, signal.SIGUSR2)
            until(lambda: holder_of(run) != process)
            seen.append(len(records_in(run)))
        if len(seen) == 2:
            held_here.unlink(missing_ok=True)

    held_here.touch()
    assert launched(small, out, ProcessesHere(end_twice)) == {Status.BUDGET_REACHED: 1}
    assert len(seen) == 2
    assert as_undisturbed(small.specs[0], out, resumptions=2)


def test_a_job_that_is_killed_is_submitted_again(at_once, held_here, tmp_path, as_undisturbed, capsys):
    small, out, killed = held_experiment(tmp_path), tmp_path / "runs", []
    run = out / run_id(small.specs[0])

    def kill_once(queue):
        if not killed and (run / CHECKPOINT).exists():
            killed.append(holder_of(run))
            os.kill(killed[0], signal.SIGKILL)
            held_here.unlink()

    held_here.touch()
    queue = ProcessesHere(kill_once)
    assert launched(small, out, queue) == {Status.BUDGET_REACHED: 1}
    assert len(queue.jobs) == 2
    assert "died on here (job " in capsys.readouterr().err
    assert as_undisturbed(small.specs[0], out, resumptions=1)


def test_runs_in_jobs_of_slurm(slurm, tmp_path, as_undisturbed):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    code, output, errors = slurm.run(config, "--out", out)
    assert code == 0, errors
    assert output == "1 run to do, 0 done already; budget to spend: 60 steps\n"
    assert re.search(r"^\[1/1\] [0-9a-f]{16} digits-mlp, Fixed, seed 0: on .+: budget reached, ", errors, re.MULTILINE)
    assert as_undisturbed(the_spec(config), out, resumptions=0)
    assert oho_bench("status", out).stdout.startswith("small: 1 runs: 1 budget reached\n")


def test_slurm_takes_a_run_up_again_after_its_time(slurm, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    with slurm.held():
        process, spec = slurm.begin(config, "--set", LONG, "--out", out), the_spec(config, LONG)
        begun(out / run_id(spec))
        job = slurm.ask("squeue", "--noheader", "--format=%i").strip()
        slurm.ask("scancel", "--signal=USR2", job)
        until(lambda: "PENDING" in slurm.ask("squeue", "--noheader", "--format=%T"), seconds=300)
    assert read_outcome(out / run_id(spec)).status is Status.INTERRUPTED
    _, errors = process.communicate(timeout=400)  # Slurm lets a job wait two minutes before it begins again
    assert process.returncode == 0, errors
    assert "its time was over; it continues from its checkpoint" in errors
    assert as_undisturbed(spec, out, resumptions=1)


def test_a_stopped_command_leaves_its_jobs_to_the_next_one(slurm, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    with slurm.held():
        process, spec = slurm.begin(config, "--set", LONG, "--out", out), the_spec(config, LONG)
        begun(out / run_id(spec))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    job = slurm.ask("squeue", "--noheader", "--format=%A").strip()
    assert f"oho-bench: jobs that stay in the queue: 1; `scancel {job}` ends them, with a checkpoint\n" in errors
    code, _, errors = slurm.run(config, "--set", LONG, "--out", out)
    assert code == 0, errors
    assert len([*(out / FOLDER).glob("*_submitted.pkl")]) == 1
    assert as_undisturbed(spec, out, resumptions=0)


def test_jobs_that_a_user_cancels_write_a_checkpoint(slurm, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    with slurm.held():
        process, spec = slurm.begin(config, "--set", LONG, "--out", out), the_spec(config, LONG)
        begun(out / run_id(spec))
        slurm.ask("scancel", slurm.ask("squeue", "--noheader", "--format=%A").strip())
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert errors.splitlines()[-1] == "oho-bench: 1 run is left: jobs were cancelled; repeat the command to continue"
    assert read_outcome(out / run_id(spec)).status is Status.INTERRUPTED
    assert (out / run_id(spec) / CHECKPOINT).exists()
    code, _, errors = slurm.run(config, "--set", LONG, "--out", out)
    assert code == 0, errors
    assert as_undisturbed(spec, out, resumptions=1)


def test_what_slurm_refuses_is_one_line_in_its_words(slurm, tmp_path):
    words = write_config(tmp_path, "fixed"), "--out", tmp_path / "runs"
    for options, problem in {
        ("--sbatch", "partition=nosuch"): "sbatch: error: invalid partition specified: nosuch; sbatch: error: Batch job",
        ("--sbatch", "nosuch=1"): "sbatch: unrecognized option '--nosuch=1'",
        ("--device", "cuda"): "sbatch: error: Invalid generic resource (gres) specification",
    }.items():
        code, _, errors = slurm.run(*words, *options)
        assert code == 2
        assert errors.splitlines()[-1].startswith(f"oho-bench: --launcher slurm: {problem}")
        assert sum("sbatch" in line for line in errors.splitlines()) == 1
