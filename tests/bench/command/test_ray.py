"""Runs on two nodes of a Ray cluster, and each fault made for real."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from faults import timeless
from held_runs import LONG, write_held
from helpers import ROOT, oho_bench, run_one, write_config
from processes import until

from bench.experiment.expansion import load_experiment
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, read_outcome, run_id

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
pytest.importorskip("ray")

from ray_nodes import Cluster, holder_of  # noqa: E402


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def second(cluster):
    """A node beside the head, which stays for the tests that follow."""
    if "second" not in cluster.nodes:
        cluster.start("second")


@pytest.fixture
def only_head(cluster):
    """The cluster without the node that earlier tests have left."""
    if "second" in cluster.nodes:
        cluster.end("second")
    return cluster


def specs_of(config, *overrides, seeds=None):
    return load_experiment(config, overrides=overrides, seeds=seeds).specs


@pytest.fixture(scope="module")
def as_undisturbed(tmp_path_factory):
    """Whether runs have ended with the records that a single process gives."""
    folder, made = tmp_path_factory.mktemp("twins"), set()

    def compare(specs, out):
        for spec in specs:
            name = run_id(spec)
            if name not in made:
                run_one(spec, folder)
                made.add(name)
            assert read_outcome(out / name).status is Status.BUDGET_REACHED
            assert timeless(out / name) == timeless(folder / name)
        return True

    return compare


def lines_of_runs(errors):
    """The lines of runs among those of a command, which has others once a minute."""
    return [line for line in errors.splitlines() if line.startswith("[")]


def nodes_in(errors):
    """The node of each run that has ended."""
    return [line.split(": on ")[1].split(":")[0] for line in lines_of_runs(errors)]


def working(out, count, *, files=(".claim",)):
    """The folders of so many runs in progress that have these files."""

    def found():
        runs = [path.parent for path in out.glob("*/.claim")]
        runs = [run for run in runs if all((run / name).exists() for name in files)]
        return runs if len(runs) >= count else None

    return until(found, seconds=300)


def test_runs_are_spread_over_the_nodes_and_recorded_as_locally(cluster, second, tmp_path, as_undisturbed):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    words = config, "--seeds", "0-3", "--population", "off", "--out", out
    code, output, errors = cluster.run(*words)
    assert code == 0, errors
    assert output == "4 runs to do, 0 done already; budget to spend: 240 steps\n"
    lines = lines_of_runs(errors)
    assert len(lines) == 4
    for line in lines:
        assert re.match(r"\[\d/4\] [0-9a-f]{16} digits-mlp, Fixed, seed \d: on (head|second): budget reached, \d", line)
    assert set(nodes_in(errors)) == {"head", "second"}
    assert as_undisturbed(specs_of(config, seeds=range(4)), out)
    assert oho_bench("status", out).stdout.startswith("small: 4 runs: 4 budget reached\n")
    code, output, errors = cluster.run(*words)
    assert (code, errors) == (0, "")
    assert "0 runs to do, 4 done already" in output


def test_batches_are_spread_over_the_nodes(cluster, second, tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    words = config, "--seeds", "0-5", "--out", out
    _, plan, _ = cluster.run(*words, "--dry-run")
    assert "trained together, with seconds in common: 2 × 3 runs" in plan.splitlines()
    code, _, errors = cluster.run(*words)
    assert code == 0, errors
    assert sorted(nodes_in(errors)) == ["head"] * 3 + ["second"] * 3
    outcomes = [read_outcome(out / run_id(spec)) for spec in specs_of(config, seeds=range(6))]
    assert [(outcome.status, outcome.shared_by) for outcome in outcomes] == [(Status.BUDGET_REACHED, 3)] * 6


def test_a_run_whose_worker_is_killed_continues_from_its_checkpoint(cluster, second, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    with cluster.held():
        process = cluster.begin(config, "--set", LONG, "--out", out)
        (run,) = working(out, 1, files=[CHECKPOINT])
        os.kill(holder_of(run), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "died on" in errors
    assert read_outcome(run).conditions["resumptions"] == 1
    assert as_undisturbed(specs_of(config, LONG), out)


def test_the_run_of_a_node_that_leaves_continues_on_another(cluster, second, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    with cluster.held():
        process = cluster.begin(config, "--set", LONG, "--seeds", "0,1", "--out", out)
        runs = working(out, 2, files=[CHECKPOINT])
        there = cluster.processes("second")
        (lost,) = [run for run in runs if holder_of(run) in there]
        cluster.end("second")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "died on second" in errors
    assert read_outcome(lost).conditions["resumptions"] == 1
    assert as_undisturbed(specs_of(config, LONG, seeds=[0, 1]), out)


def test_a_driver_that_was_killed_goes_on_when_it_is_started_again(cluster, second, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    words = config, "--set", LONG, "--seeds", "0,1", "--out", out
    with cluster.held():
        process = cluster.begin(*words)
        runs = working(out, 2, files=[CHECKPOINT])
        process.kill()
    process.communicate()
    code, _, errors = cluster.run(*words)
    assert code == 0, errors
    assert as_undisturbed(specs_of(config, LONG, seeds=[0, 1]), out)
    for run in runs:
        assert read_outcome(run).conditions["resumptions"] == 1


def test_ctrl_c_writes_a_checkpoint_of_every_run(cluster, second, tmp_path, as_undisturbed):
    config, out = write_held(tmp_path), tmp_path / "runs"
    words = config, "--set", LONG, "--seeds", "0,1", "--out", out
    with cluster.held():
        process = cluster.begin(*words)
        runs = working(out, 2, files=["records.jsonl"])
        until(lambda: all((run / "records.jsonl").read_text().count("\n") > 2 for run in runs), seconds=300)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "oho-bench: stopped; repeat the command to continue"
    for run in runs:
        assert (run / CHECKPOINT).exists()
        assert read_outcome(run).status is Status.INTERRUPTED
    code, _, errors = cluster.run(*words)
    assert code == 0, errors
    assert as_undisturbed(specs_of(config, LONG, seeds=[0, 1]), out)


PLUGIN = """\
from bench.protocol import MethodEntry
from baselines.training import FIXED
import dataclasses

MINE = dataclasses.replace(FIXED, label="Mine")
"""


def test_a_method_of_the_users_own_travels(cluster, second, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    config.write_text(config.read_text().replace("{name: fixed}", "{name: ./mine.py:MINE}"))
    code, _, errors = cluster.run(config, "--seeds", "0-3", "--out", out)
    assert code == 0, errors
    assert set(nodes_in(errors)) == {"head", "second"}


def test_the_runs_of_a_batch_whose_worker_is_killed_continue_alone(only_head, tmp_path):
    """Ray may still count a node that has just ended, so that a batch has two of the four runs."""
    config, out = write_held(tmp_path, "BATCHED"), tmp_path / "runs"
    with only_head.held():
        process = only_head.begin(config, "--set", LONG, "--seeds", "0-3", "--out", out)
        runs = working(out, 2, files=[CHECKPOINT])
        (worker,) = {holder_of(run) for run in runs}
        os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    said = r"and \d more runs?: died on head \(WorkerCrashedError\); each continues alone from its checkpoint"
    assert re.search(said, errors), errors
    for run in runs:
        assert read_outcome(run).status is Status.BUDGET_REACHED
        assert read_outcome(run).conditions["resumptions"] == 1


def test_a_node_without_the_data_set_makes_other_runs(only_head, mnist_root, tmp_path):
    (tmp_path / "mnist").mkdir()
    digits, mnist = write_config(tmp_path, "fixed"), write_config(tmp_path / "mnist", "fixed")
    mnist.write_text(mnist.read_text().replace("digits-mlp, selection_epochs: 1", "mnist-mlp, selection_epochs: 1")
                     .replace("small", "large"))  # fmt: skip
    only_head.start("bare", OHO_DATA=str(tmp_path / "nothing"))
    try:
        words = "--seeds", "0,1", "--set", "budget.steps=20", "--out", tmp_path / "runs"
        code, _, errors = only_head.run(mnist, digits, *words, OHO_DATA=str(mnist_root))
    finally:
        only_head.end("bare")
    assert code == 0, errors
    (line,) = [line for line in errors.splitlines() if "bare has no" in line]
    assert f" in {tmp_path / 'nothing'}; fetch it there or set OHO_DATA" in line


def test_a_node_with_another_version_of_the_code_is_refused(only_head, tmp_path):
    for package in ("oho", "bench", "baselines", "configs", "reports"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package)
    with (tmp_path / "code" / "oho" / "__init__.py").open("a") as file:
        file.write("\n# changed\n")
    only_head.start("older", PYTHONPATH=str(tmp_path / "code"))
    try:
        code, _, errors = only_head.run(
            write_config(tmp_path, "fixed"), "--seeds", "0-2", "--out", tmp_path / "runs"
        )
    finally:
        only_head.end("older")
    assert code == 0, errors
    (line,) = [line for line in errors.splitlines() if "older" in line]
    assert re.search(r"older has another version of oho-bench \(its code's hash is [0-9a-f]{16}, the driver's", line)


def test_the_run_of_a_node_whose_disk_is_full_goes_to_another(only_head, tmp_path, as_undisturbed):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    specs = specs_of(config, seeds=[0, 1])
    places = [out / run_id(spec) for spec in specs]
    for place in places:
        place.mkdir(parents=True)
    mounts = " && ".join(f"mount -t tmpfs -o size=4k none {place}" for place in places)
    able = subprocess.run(["unshare", "-m", "sh", "-c", mounts], capture_output=True)
    if able.returncode:
        pytest.skip("a disk of its own cannot be given to a node here")
    fill = " && ".join(f"head -c 4096 /dev/zero > {place}/full" for place in places)
    only_head.start("full", before=["unshare", "-m", "sh", "-c", f'{mounts} && {fill}; exec "$@"', "sh"])
    try:
        code, _, errors = only_head.run(config, "--seeds", "0,1", "--out", out)
    finally:
        only_head.end("full")
    assert code == 0, errors
    (line,) = [line for line in errors.splitlines() if "full cannot store" in line]
    assert "No space left on device" in line
    assert as_undisturbed(specs, out)


def test_what_no_node_has_is_refused_before_anything_runs(cluster, tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    code, _, errors = cluster.run(config, "--out", out, "--cpus-per-run", "64")
    assert code == 2
    nodes = r"(\w+: 1 processors, 0 GPUs(; )?)+"  # those of earlier tests may be known for a while
    assert re.fullmatch(f"oho-bench: no node has 64 processors for a run: {nodes}\n", errors)
    code, _, errors = cluster.run(config, "--out", out, "--device", "cuda")
    assert code == 2
    assert re.fullmatch(f"oho-bench: --device cuda: no node has a GPU \\({nodes}\\); use cpu or auto\n", errors)
    assert not out.exists()


@pytest.mark.parametrize("where", ["environment", "machine"])
def test_the_automatic_address_is_that_of_the_environment_or_of_the_machine(where, cluster, tmp_path):
    found = {"environment": {"RAY_ADDRESS": cluster.address}, "machine": {"RAY_TMPDIR": str(cluster.temporary("head"))}}
    words = write_config(tmp_path, "fixed"), "--out", tmp_path / "runs", "--cpus-per-run", "64"
    code, _, errors = cluster.run(*words, address="auto", **found[where])
    assert code == 2
    assert errors.startswith("oho-bench: no node has 64 processors for a run: ")
    assert "head: 1 processors, 0 GPUs" in errors


def test_a_command_without_the_token_is_refused(cluster, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    began = time.monotonic()
    code, _, errors = cluster.run(
        write_config(tmp_path, "fixed"), "--out", tmp_path / "runs", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")
    )
    assert code == 2
    assert errors.startswith(f"oho-bench: --address {cluster.address}: ")
    assert len(errors.splitlines()) == 1
    assert time.monotonic() - began < 60


def test_a_head_that_is_lost_ends_the_command_within_20_seconds(tmp_path):
    cluster = Cluster(tmp_path)
    try:
        out = tmp_path / "runs"
        with cluster.held():
            process = cluster.begin(write_held(tmp_path), "--set", LONG, "--out", out)
            working(out, 1)
            cluster.end("head")
            began = time.monotonic()
            _, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
        assert process.returncode == 1
        assert errors.splitlines()[-1] == (
            f"oho-bench: {cluster.address}: the head of the Ray cluster no longer answers; repeat the command when it is"
            " back, to continue"
        )
    finally:
        cluster.close()
