"""`--launcher slurm`: what is submitted together, what is refused, and runs in a queue whose jobs are this process."""

import sys
from types import SimpleNamespace

import pytest
from faults import command, the_line, timeless
from helpers import experiment, run_one, write_config

from bench.command import queued
from bench.command.arrays import MOST_JOBS, Resources, arrays, sbatch_options
from bench.command.handover import Journal
from bench.command.planning import plan
from bench.command.queued import OnQueue
from bench.command.remote_run import Result, make_remotely
from bench.command.scheduling import MOST_DEATHS, End, Job, demand_of
from bench.command.slurm_queue import SlurmQueue
from bench.command.slurm_task import RunInJob
from bench.experiment.yaml_file import ConfigError
from bench.process.run_lock import claimed
from bench.process.signals import Interrupted
from bench.records import Status, read_outcome, run_id
from bench.records.errors import ClusterError


class JobsHere:
    """A queue whose jobs wait at the first look, run at the second, and are made in this process when they leave it."""

    def __init__(self, instead=lambda order: None):
        self.instead, self.jobs, self.looks, self.left = instead, {}, {}, {}

    def has_gpus(self):
        return False

    def submit(self, root, resources, orders):
        found = [f"7_{len(self.jobs) + number}" for number in range(len(orders))]
        self.jobs |= dict(zip(found, orders, strict=True))
        return found

    def look(self, jobs):
        for job in jobs:
            self.looks[job] = self.looks.get(job, 0) + 1
            if self.looks[job] == 3:
                self.left[job] = self.instead(self.jobs[job]) or RunInJob()(self.jobs[job])
        return {job: None if self.looks[job] == 1 else "one" for job in jobs if self.looks[job] < 3}

    def result(self, root, job):
        result = self.left.get(job)
        return None if result in ("killed", "cancelled") else result

    def has_begun(self, root, job):
        return self.left[job] != "cancelled"

    def how_to_cancel(self, jobs):
        return "scancel 7"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(queued, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(queued, "GONE_SECONDS", 0.0)
    monkeypatch.setattr("bench.command.slurm_task.TAKEN_SECONDS", 0.0)
    monkeypatch.setattr("bench.command.slurm_task.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("bench.command.slurm_task.work", make_remotely)


def launched(small, out, queue, *, waits=True):
    launcher = OnQueue(queue, None, waits)
    return launcher.launch([small], plan([small], out), out, data_root=None, journal=Journal.new())


def test_runs_in_jobs_have_the_records_of_runs_made_here(tmp_path, capsys):
    small, out = experiment(tmp_path, "fixed", "adam"), tmp_path / "runs"
    assert launched(small, out, JobsHere()) == {Status.BUDGET_REACHED: 2}
    for spec in small.specs:
        run_one(spec, tmp_path / "here")
        assert timeless(out / run_id(spec)) == timeless(tmp_path / "here" / run_id(spec))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["[1/2]", "[2/2]"]
    assert all(": on one: budget reached, " in line for line in lines)


def test_a_command_that_does_not_wait_is_followed_by_one_that_watches_its_jobs(tmp_path, capsys):
    small, out, queue = experiment(tmp_path, "fixed"), tmp_path / "runs", JobsHere()
    assert launched(small, out, queue, waits=False) == {}
    assert f"jobs in the queue: 1; `oho-bench status {out}` shows" in capsys.readouterr().out
    assert launched(small, out, queue) == {Status.BUDGET_REACHED: 1}
    assert list(queue.jobs) == ["7_0"]


def test_a_job_that_dies_again_and_again_has_failed(tmp_path, capsys):
    small, out = experiment(tmp_path, "fixed", seeds=[0, 1]), tmp_path / "runs"
    doomed = run_id(small.specs[0])
    queue = JobsHere(lambda order: "killed" if order["given"][0]["id"] == doomed else None)
    assert launched(small, out, queue) == {Status.FAILED: 1, Status.BUDGET_REACHED: 1}
    assert len(queue.jobs) == 1 + MOST_DEATHS
    assert read_outcome(out / doomed).message == (
        f"its process died {MOST_DEATHS} times without progress, last on one (job 7_{MOST_DEATHS})"
    )
    assert capsys.readouterr().err.count("died on one (job 7_") == MOST_DEATHS - 1


def test_a_job_that_a_look_at_the_queue_has_missed_is_waited_for_in_full(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.monotonic, clock.sleep = lambda: clock.now, lambda seconds: setattr(clock, "now", clock.now + 10.0)
    monkeypatch.setattr(queued, "time", clock)
    monkeypatch.setattr(queued, "GONE_SECONDS", 15.0)

    class MissedOnce(JobsHere):
        def look(self, jobs):
            """The job is missed at 10 seconds and ends before 40; its result is there at 50."""
            if clock.now == 50.0:
                self.left = {job: RunInJob()(self.jobs[job]) for job in jobs}
            return dict.fromkeys(jobs, "one") if clock.now in (0.0, 20.0, 30.0) else {}

        def has_begun(self, root, job):
            return True

    queue = MissedOnce()
    assert launched(experiment(tmp_path, "fixed"), tmp_path / "runs", queue) == {Status.BUDGET_REACHED: 1}
    assert len(queue.jobs) == 1


def test_cancelled_jobs_are_not_submitted_again(tmp_path):
    small, queue = experiment(tmp_path, "fixed", seeds=[0, 1]), JobsHere(lambda order: "cancelled")
    with pytest.raises(ClusterError, match=r"^2 runs are left: jobs were cancelled; repeat the command to continue$"):
        launched(small, tmp_path / "runs", queue)
    assert len(queue.jobs) == 2


def test_what_a_node_lacks_is_reported_with_its_name(tmp_path):
    queue = JobsHere(lambda order: Result(End.REFUSED, "has no digits"))
    with pytest.raises(ClusterError, match=r"^1 run is left: one has no digits; repeat the command to continue$"):
        launched(experiment(tmp_path, "fixed"), tmp_path / "runs", queue)


def test_a_run_that_another_runner_keeps_is_left_to_it(tmp_path, capsys):
    small, out = experiment(tmp_path, "fixed"), tmp_path / "runs"
    with claimed(out / run_id(small.specs[0])):
        assert launched(small, out, JobsHere()) == {}
    assert "Fixed, seed 0: another runner has it" in capsys.readouterr().err


def test_jobs_stay_when_the_command_is_stopped(tmp_path, capsys):
    def stop(order):
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        launched(experiment(tmp_path, "fixed"), tmp_path / "runs", JobsHere(stop))
    said = capsys.readouterr().err
    assert "oho-bench: jobs that stay in the queue: 1; `scancel 7` ends them, with a checkpoint\n" in said


def test_jobs_that_ask_for_the_same_are_submitted_together():
    def job(number, device="cpu", unit="steps", threads=1, cpus=None):
        spec = {"device": device, "budget": {"unit": unit}, "threads": threads}
        return Job(str(number), demand_of(spec, per_gpu=1, cpus=cpus, needs=""))

    jobs = [job(0), job(1, unit="seconds"), job(2, "cuda"), job(3, "cuda", "seconds", cpus=4), job(4, threads=None), job(5)]
    assert {array.resources: list(array.runs) for array in arrays(jobs)} == {
        Resources(1, 0, False): ["0", "5"],
        Resources(1, 0, True): ["1"],
        Resources(1, 1, False): ["2"],
        Resources(4, 1, False): ["3"],
        Resources(None, 0, True): ["4"],
    }
    sizes = [len(array.runs) for array in arrays(job(number) for number in range(MOST_JOBS + 1))]
    assert sizes == [MOST_JOBS, 1]


def test_options_of_sbatch():
    given = ["partition=gpu", "--account=a=b", "exclusive"]
    assert sbatch_options(given) == {"partition": "gpu", "account": "a=b", "exclusive": True}
    for text, problem in {
        "time=3": "--sbatch time: use --job-minutes",
        "signal=USR1": "--sbatch signal: the command sets it",
        "partition=": "KEY=VALUE is expected, such as partition=gpu",
        "a=b\nc": "KEY=VALUE is expected",
    }.items():
        with pytest.raises(ConfigError, match=problem):
            sbatch_options([text])
    with pytest.raises(ConfigError, match="--sbatch qos: is given twice"):
        sbatch_options(["qos=a", "qos=b"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--launcher", "slurm"], "--launcher slurm: submitit is not installed; pip install 'oho-bench[cluster]'"),
        (["--no-wait"], "--wait: is an option of --launcher slurm, not of local"),
        (["--launcher", "ray", "--sbatch", "a=b"], "--sbatch: is an option of --launcher slurm, not of ray"),
    ],
)
def test_a_launcher_that_is_not_there_is_one_line(words, line, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    answer = command("run", write_config(tmp_path, "fixed"), "--out", tmp_path / "runs", *words)
    assert the_line(answer, 2) == f"oho-bench: {line}"
    assert not (tmp_path / "runs").exists()


def test_a_machine_that_submits_no_jobs_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.command.slurm_queue._imported", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--launcher slurm: sbatch is not found; run the command on a machine"):
        SlurmQueue(60, None, {})
