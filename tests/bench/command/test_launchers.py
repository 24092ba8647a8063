"""`--launcher`: what is refused before anything runs, and runs on nodes that are this process."""

import sys
import time
from dataclasses import replace

import pytest
from faults import command, outcome_of, the_line, timeless
from helpers import experiment, run_one, write_config
from simulated_pool import NodesHere

from bench.command.cluster import OnNodes
from bench.command.handover import Journal
from bench.command.node_task import folder_of_code, hash_of_code, work
from bench.command.nodes_display import NodesDisplay
from bench.command.planning import plan
from bench.command.ray_pool import check_answers, meant
from bench.command.remote_run import Result, make_remotely
from bench.command.scheduling import MOST_DEATHS, End
from bench.experiment.yaml_file import ConfigError
from bench.process.run_lock import claimed
from bench.records import Status, read_outcome, run_id
from bench.records.errors import ClusterError

SHORT = ["budget.steps=12", "evaluations=1", "task.width=8"]


def launched(experiments, out, pool=None, **options):
    planned = plan(experiments, out)
    nodes = OnNodes(pool or NodesHere(), 1, None)
    return nodes.launch(experiments, planned, out, data_root=None, journal=options.pop("journal", Journal.new()))


def test_runs_on_nodes_have_the_records_of_runs_made_here(tmp_path, capsys):
    small = experiment(tmp_path, "fixed", "adam", seeds=[0, 1], overrides=["population=off"])
    assert launched([small], tmp_path / "runs") == {Status.BUDGET_REACHED: 4}
    for spec in small.specs:
        run_one(spec, tmp_path / "here")
        assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "here" / run_id(spec))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert {line.split(": on ")[1].split(":")[0] for line in lines} == {"one", "two"}


def test_a_batch_travels_to_one_node_and_each_has_work(tmp_path, capsys):
    small, pool, jobs = experiment(tmp_path, "fixed", seeds=range(4), overrides=SHORT), NodesHere(), []
    plain = pool.start
    pool.start = lambda start, order: (jobs.append((start.node.name, len(order["given"]))), plain(start, order))
    assert launched([small], tmp_path / "runs", pool) == {Status.BUDGET_REACHED: 4}
    assert sorted(jobs) == [("one", 2), ("two", 2)]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    pairs = experiment(tmp_path, "fixed", seeds=range(4), overrides=[*SHORT, "population=2"])
    outcome_of([pairs], tmp_path / "here")
    for run in small.ids:
        assert read_outcome(tmp_path / "runs" / run).shared_by == 2
        assert timeless(tmp_path / "runs" / run) == timeless(tmp_path / "here" / run)


def test_the_runs_of_a_batch_that_died_continue_alone(tmp_path, capsys):
    small, deaths = experiment(tmp_path, "fixed", seeds=range(3), overrides=SHORT), []

    def once(start):
        if start.job.beside:
            deaths.append(start.job.runs)
            return Result(End.DIED, "WorkerCrashedError")
        return None

    assert launched([small], tmp_path / "runs", NodesHere(once)) == {Status.BUDGET_REACHED: 3}
    (died,) = deaths
    assert [read_outcome(tmp_path / "runs" / run).shared_by for run in died] == [1, 1]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "died on" in line]
    assert ", and 1 more run: died on " in line
    assert line.endswith(" (WorkerCrashedError); each continues alone from its checkpoint")


def test_a_run_of_a_batch_that_another_runner_keeps_is_left_to_it(tmp_path, capsys, monkeypatch):
    small = experiment(tmp_path, "fixed", seeds=range(6), overrides=SHORT)
    monkeypatch.setattr("bench.command.scheduling.TAKEN_SECONDS", 0.0)
    with claimed(tmp_path / "runs" / small.ids[0]):
        assert launched([small], tmp_path / "runs") == {Status.BUDGET_REACHED: 5}
    assert "Fixed, seed 0: another runner has it" in capsys.readouterr().err


def test_a_run_whose_processes_die_again_and_again_has_failed(tmp_path, capsys):
    small = experiment(tmp_path, "fixed", seeds=[0, 1])
    doomed = run_id(small.specs[0])
    pool = NodesHere(lambda start: Result(End.DIED, "WorkerCrashedError") if start.job.id == doomed else None)
    assert launched([small], tmp_path / "runs", pool) == {Status.FAILED: 1, Status.BUDGET_REACHED: 1}
    message = read_outcome(tmp_path / "runs" / doomed).message
    assert message.startswith(f"its process died {MOST_DEATHS} times without progress, last on ")
    lines = capsys.readouterr().err.splitlines()
    assert sum("it continues from its checkpoint" in line for line in lines) == MOST_DEATHS - 1


def dying_after(runs):
    """Nodes where the process that has made one of these runs dies before anyone has heard of it."""
    orders, left, pool = {}, set(runs), NodesHere()
    plain = pool.start

    def instead(start):
        order = orders[start.job.id]
        made = [each for each in order["given"] if each["id"] in left]
        left.difference_update(each["id"] for each in made)
        return Result(End.DIED, "NodeDiedError") if made and make_remotely({**order, "given": made}) else None

    pool.instead = instead
    pool.start = lambda start, order: (orders.update({start.job.id: order}), plain(start, order))
    return pool


def test_a_run_whose_process_died_after_it_had_ended_it_counts_once_as_what_it_is(tmp_path, capsys):
    small = experiment(tmp_path, "fixed", seeds=[0, 1], overrides=[*SHORT, "population=off"])
    assert launched([small], tmp_path / "runs", dying_after(small.ids)) == {Status.BUDGET_REACHED: 2}
    told = capsys.readouterr().err
    assert told.count("budget reached") == 2
    assert "another runner" not in told


def test_a_run_that_its_batch_has_ended_before_its_process_died_counts_once(tmp_path, capsys):
    small = experiment(tmp_path, "fixed", seeds=range(4), overrides=SHORT)
    assert launched([small], tmp_path / "runs", dying_after(small.ids[:1])) == {Status.BUDGET_REACHED: 4}
    told = capsys.readouterr().err
    assert told.count("budget reached") == 4
    assert told.count("continues alone") == 1
    assert "another runner" not in told


def test_the_seconds_of_a_batch_are_counted_once(tmp_path, capsys, monkeypatch):
    small, out = experiment(tmp_path, "fixed", seeds=range(4), overrides=SHORT), tmp_path / "runs"
    launched([small], out)
    outcomes = [read_outcome(out / run) for run in small.ids]
    with NodesDisplay(small.specs) as display:
        monkeypatch.setattr("bench.command.nodes_display.LINE_SECONDS", 0.0)
        for run, outcome in zip(small.ids, outcomes, strict=True):
            display.end(run, "one", replace(outcome, counted_seconds=100.0))
        display.look(1, 0, lambda run: 0.0)
    assert [outcome.shared_by for outcome in outcomes] == [2] * 4
    assert capsys.readouterr().err.splitlines()[-1] == (
        "4 of 4 done, 0 running on 1 node, 0 queued, 0 failed, 3 min 20 s counted"
    )


def test_a_run_that_another_runner_keeps_is_left_to_it(tmp_path, capsys, monkeypatch):
    small = experiment(tmp_path, "fixed", seeds=[0, 1])
    monkeypatch.setattr("bench.command.scheduling.TAKEN_SECONDS", 0.0)
    with claimed(tmp_path / "runs" / run_id(small.specs[0])):
        assert launched([small], tmp_path / "runs") == {Status.BUDGET_REACHED: 1}
    assert "Fixed, seed 0: another runner has it" in capsys.readouterr().err


def test_nodes_that_do_not_see_the_folder_end_the_command(tmp_path):
    small, pool = experiment(tmp_path, "fixed"), NodesHere()
    plain = pool.start
    pool.start = lambda start, order: plain(start, {**order, "root": "/nowhere"})
    with pytest.raises(ClusterError, match=r"^1 run is left that no node can make: (one|two) does not see the results"):
        launched([small], tmp_path / "runs", pool)


def test_what_no_node_has_is_refused_before_the_folder_is_made(tmp_path):
    nodes, small = OnNodes(NodesHere(), 1, 8), experiment(tmp_path, "fixed")
    with pytest.raises(ConfigError, match="no node has 8 processors for a run: one: 1 processors, 0 GPUs; two: 1 proc"):
        nodes.launch([small], plan([small], tmp_path / "runs"), tmp_path / "runs", data_root=None, journal=Journal.new())
    with pytest.raises(ConfigError, match="--device cuda: no node has a GPU"):
        nodes.device("cuda", None)
    assert nodes.device("auto", None) == "cpu"
    assert not (tmp_path / "runs").exists()


def test_a_pipe_gets_a_line_about_all_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.command.nodes_display.LINE_SECONDS", 0.0)
    launched([experiment(tmp_path, "fixed", seeds=[0, 1, 2], overrides=["population=off"])], tmp_path / "runs")
    lines = [line for line in capsys.readouterr().err.splitlines() if " done, " in line]
    assert lines[0] == "0 of 3 done, 2 running on 2 nodes, 1 queued, 0 failed, 0 s counted, 180 steps of budget left"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--launcher", "ray"], "--launcher ray: Ray is not installed; pip install 'oho-bench[cluster]'"),
        (["--launcher", "pbs"], "--launcher pbs: allowed: local, ray, slurm"),
        (["--per-gpu", "2"], "--per-gpu: is an option of --launcher ray, not of local"),
    ],
)
def test_a_launcher_that_is_not_there_is_one_line(words, line, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = command("run", write_config(tmp_path, "fixed"), "--out", tmp_path / "runs", *words)
    assert the_line(answer, 2) == f"oho-bench: {line}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:0", "host:port", "host:70000", "ray://host:1"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(ConfigError, match=r"^--address .*: auto or HOST:PORT is expected"):
        check_answers(*meant(address))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_an_address_that_does_not_answer_is_one_line_at_once():
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"--address 127\.0\.0\.1:9: nothing answers there; start a head"):
        check_answers(*meant("127.0.0.1:9"))
    assert time.monotonic() - began < 5


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(
    ("named", "problem"), [("127.0.0.1:9", "nothing answers there"), ("local", "auto or HOST:PORT is expected")]
)
def test_an_address_of_the_environment_is_named_as_such(named, problem, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(ConfigError, match=rf"^RAY_ADDRESS={named}: {problem}"):
        check_answers(*meant("auto"))
    assert meant("10.0.0.1:6379") == ("10.0.0.1:6379", "--address 10.0.0.1:6379")


def test_other_code_is_refused_by_its_hash(tmp_path):
    (tmp_path / "oho").mkdir()
    (tmp_path / "oho" / "a.py").write_text("a = 1\n")
    first = hash_of_code(str(tmp_path))
    (tmp_path / "oho" / "a.py").write_text("a = 2\n")
    assert hash_of_code(str(tmp_path)) != first
    present = hash_of_code(folder_of_code())
    reason = work({"code": first, "version": "1"})
    assert reason == f"has another version of oho-bench (its code's hash is {present}, the driver's {first})"


def test_a_node_without_a_methods_package_makes_the_other_runs(tmp_path, monkeypatch):
    small = experiment(tmp_path, "prodigy", "fixed", overrides=SHORT)
    monkeypatch.setattr("bench.protocol.entry.Package.missing", property(lambda package: f"needs {package.distribution}"))
    with pytest.raises(ClusterError, match=r"1 run is left that no node can make: one needs prodigyopt; two needs"):
        launched([small], tmp_path / "runs")
    prodigy, fixed = (read_outcome(tmp_path / "runs" / run) for run in small.ids)
    assert prodigy is None
    assert fixed.status is Status.BUDGET_REACHED


def test_runs_that_are_made_apart_have_no_part_in_the_size_of_batches(tmp_path):
    (tmp_path / "apart").mkdir()
    apart = experiment(tmp_path / "apart", "adam", seeds=range(4), overrides=["experiment=apart", "population=off"])
    small = experiment(tmp_path, "fixed", seeds=range(4), overrides=SHORT)
    batches = OnNodes(NodesHere(), 1, None).batches(plan([apart, small], tmp_path / "runs"), None)
    assert [len(batch) for batch in batches.together] == [2, 2]
