"""A process that dies within a run costs that run, and no other."""

import contextlib
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from faults import command, timeless
from helpers import experiment, oho_bench, run_one, stopped, write_config
from processes import begun, children, records_in, state_of, until, watched_over, within
from typer.testing import CliRunner

import bench.command.run_series
import bench.records.run_folder
import bench.run.runner
from baselines.training import Training
from bench.cli import app
from bench.command.crashed_runs import book_killed
from bench.command.handover import NEVER, Journal
from bench.command.planning import plan
from bench.command.run_command import Order, work
from bench.command.run_series import launch
from bench.command.status import describe
from bench.command.supervisor import RENEW
from bench.experiment.yaml_file import ConfigError
from bench.process.run_lock import claimed
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, read_manifests, read_outcome, read_run, run_id, write_outcome
from bench.records.errors import DeviceLostError
from bench.records.json_files import read_object

CONTROLLERS = (
    ("/sys/fs/cgroup/memory", {"memory.limit_in_bytes": "{}", "memory.swappiness": "0"}),
    ("/sys/fs/cgroup", {"memory.max": "{}", "memory.swap.max": "0"}),
)
"""Where Linux's versions 1 and 2 of control groups have the limits of memory."""


@pytest.fixture
def memory_cap():
    """How a process enters a control group of 1 GiB."""
    for place, limits in CONTROLLERS:
        group = Path(place) / f"oho-bench-test-{os.getpid()}"
        try:
            group.mkdir()
            for name, value in limits.items():
                (group / name).write_text(value.format(1 << 30))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield lambda group=group: (group / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()
        return
    pytest.skip("a limit of memory is not permitted here")


# Deaths


def test_a_run_whose_process_the_system_kills_has_failed_and_the_others_go_on(tmp_path):
    """What is killed is a stand-in that only notes which run it was in; a slow test takes the memory away."""
    config, out = write_config(tmp_path, "fixed", "adam"), tmp_path / "runs"
    lost = experiment(tmp_path, "fixed", "adam").ids[0]
    note = f"os.write(int(sys.argv[1]), b'in {lost} never\\n')"
    killed = f"import os, signal, sys; {note}; os.kill(os.getpid(), signal.SIGKILL)"
    answer = watched_over(0, "", killed, config, "--out", out)
    assert answer.returncode == 1, answer.stderr
    reason = "killed by SIGKILL, as systems do when memory is short"
    told = answer.stderr.splitlines()
    assert told[0] == f"oho-bench: OUT/{lost}: {reason}; the other runs continue"
    assert told[-1] == f"oho-bench: 1 run failed; `oho-bench status {out}` lists them, the same command repeats them"
    assert "small: 2 runs: 1 budget reached, 1 failed" in describe(out)
    assert describe(out).count(f": {reason}") == 1


@pytest.mark.slow
@pytest.mark.parametrize("methods", [["oho-full"], ["fixed", "oho-full"]], ids=len)
def test_runs_that_the_system_kills_for_memory_have_failed_and_the_others_go_on(methods, tmp_path, memory_cap):
    """Layers of 0.8 GB beside two small networks, in 1 GiB.  OHO's is made once before any run, to see what it has."""
    out, lost = tmp_path / "runs", len(methods)
    (tmp_path / "large").mkdir()
    small, large = write_config(tmp_path, "oho-global", "oho-default"), write_config(tmp_path / "large", *methods)
    text = large.read_text().replace("experiment: small", "experiment: large")
    large.write_text(text.replace("selection_epochs: 1", "selection_epochs: 1, width: 14_000"))
    answer = oho_bench("run", large, small, "--out", out, preexec_fn=memory_cap)
    assert answer.returncode == 1, answer.stderr
    reason = "killed by SIGKILL, as systems do when memory is short"
    killed = [line for line in answer.stderr.splitlines() if "SIGKILL" in line]
    assert len(killed) == lost
    for line in killed:
        assert re.fullmatch(rf"oho-bench: {out}/[0-9a-f]{{16}}: {reason}; the other runs continue", line)
    failed = "1 run" if lost == 1 else f"{lost} runs"
    said = f"oho-bench: {failed} failed; `oho-bench status {out}` lists them, the same command repeats them"
    assert answer.stderr.splitlines()[-1] == said
    planned = f"{lost + 2} runs to do, 0 done already; budget to spend: {60 * (lost + 2)} steps"
    assert answer.stdout.splitlines() == [planned]
    assert re.findall(r"\[(\d)/\d\]", answer.stderr) == [str(lost + 1), str(lost + 2)]
    assert f"large: {lost} runs: {lost} failed" in describe(out)
    assert "small: 2 runs: 2 budget reached" in describe(out)
    assert describe(out).count(f": {reason}") == lost


def test_a_run_in_which_a_process_died_after_it_had_been_stopped_is_continued_by_the_next_command(tmp_path):
    """The death is only booked here; a slow test has one."""
    one, journal = experiment(tmp_path, "oho-global"), Journal.new()
    left = stopped(one.specs[0], tmp_path / "runs", looks=3)
    with journal.within(left.id, left.outcome.finished):
        journal.note("died", left.id, signal.SIGSEGV)
    (item,) = book_killed(plan([one], tmp_path / "runs", tried=journal.tried), tmp_path / "runs", journal)
    assert item.outcome.status is Status.FAILED
    assert item.outcome.message.startswith("crashed with SIGSEGV")
    assert launch([one], plan([one], tmp_path / "runs"), tmp_path / "runs", data_root=None) == {Status.BUDGET_REACHED: 1}
    assert read_outcome(tmp_path / "runs" / left.id).conditions["resumptions"] == 1
    run_one(one.specs[0], tmp_path / "whole")
    assert timeless(tmp_path / "runs" / left.id) == timeless(tmp_path / "whole" / left.id)


@pytest.mark.slow
def test_a_run_that_crashes_after_it_had_been_stopped_has_failed_and_goes_on_with_the_next_command(tmp_path):
    steps, out = ["--set", "budget.steps=240", "--set", "evaluations=40"], tmp_path / "runs"
    twin = experiment(tmp_path, "oho-global", overrides=steps[1::2]).specs[0]
    left = stopped(twin, out, looks=20)
    run, known = out / left.id, len(left.records)
    assert 0 < left.outcome.steps < 240
    process = begun("run", "--out", out, *steps, "--", tmp_path / "small.yaml")
    until(lambda: not (run / "outcome.json").exists() and len(records_in(run)) > known)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSEGV)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    dead = read_run(run)
    assert dead.outcome.status is Status.FAILED
    assert dead.outcome.steps >= dead.records[-1]["step"] > left.outcome.steps
    assert f"oho-bench: {run}: crashed with SIGSEGV; the other runs continue" in told
    assert "Traceback" not in told
    assert "small: 1 runs: 1 failed" in describe(out)
    assert run_one(twin, out).conditions["resumptions"] == 1
    run_one(twin, tmp_path / "whole")
    found, undisturbed = (read_run(folder / run.name).records for folder in (out, tmp_path / "whole"))
    assert [record["test_loss"] for record in found] == [record["test_loss"] for record in undisturbed]


def test_a_command_that_is_killed_leaves_no_process_behind_and_keeps_what_was_recorded(tmp_path):
    config, out, steps = write_config(tmp_path, "oho-full"), tmp_path / "runs", ["--set", "budget.steps=4000"]
    process, run, worker = within(out, config, *steps)
    process.kill()
    process.wait()
    process.stderr.close()
    until(lambda: state_of(worker) in ("", "Z"), seconds=5)
    left = read_run(run)
    assert left.outcome is None
    assert len(left.records) >= 3
    (manifest,) = read_manifests(out)
    assert manifest.runs == (left.id,)
    assert "1 run to do" in command("run", config, "--out", out, *steps, "--dry-run").stdout


# What a command does after a death


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_journal_knows_what_was_tried_and_in_what_the_process_died(in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    journal = Journal.new()
    assert (journal.present, journal.tried, journal.unsettled, journal.last("device")) == (None, set(), {}, None)
    with journal.within("a", "then"):
        assert journal.present == "a"
    os.write(journal.descriptor, b"\n")
    assert journal.present is None
    journal.note("tried", "a")
    child = Journal(os.dup(journal.descriptor))
    child.note("in", "b", "never")
    assert (child.since("a"), child.since("b")) == ("then", "never")
    assert journal.present == "b"
    journal.note("out")
    journal.note("died", "b", 9)
    assert child.present is None
    assert child.tried == {"a", "b"}
    assert child.unsettled == {"b": 9}
    child.note("settled", "b")
    assert journal.unsettled == {}


def failing(monkeypatch):
    def broken(method, state, **options):
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(Training, "advance", broken)


def test_what_has_failed_is_tried_again_by_the_next_command_only(tmp_path, monkeypatch):
    failing(monkeypatch)
    one, journal = experiment(tmp_path, "fixed"), Journal.new()
    planned = plan([one], tmp_path)
    assert launch([one], planned, tmp_path, data_root=None, journal=journal) == {Status.FAILED: 1}
    (item,) = plan([one], tmp_path, tried=journal.tried)
    assert item.is_done
    assert item.outcome.status is Status.FAILED
    assert not plan([one], tmp_path)[0].is_done


@pytest.mark.parametrize("is_another", [True, False])
@pytest.mark.parametrize("status", [Status.BUDGET_REACHED, Status.FAILED])
def test_a_death_is_booked_unless_another_runner_has_ended_the_run_meanwhile(status, is_another, tmp_path):
    one, journal = experiment(tmp_path, "fixed"), Journal.new()
    identity = run_id(one.specs[0])
    ended = replace(run_one(one.specs[0], tmp_path), status=status)
    write_outcome(tmp_path / identity, ended)
    with journal.within(identity, NEVER if is_another else ended.finished):
        journal.note("died", identity, 9)
    (item,) = book_killed(plan([one], tmp_path, tried=journal.tried), tmp_path, journal)
    assert item.outcome.message == read_outcome(tmp_path / identity).message
    assert item.outcome.status is (status if is_another else Status.FAILED)
    assert item.outcome.message.startswith("killed by SIGKILL") is not is_another
    assert journal.unsettled == {}


@pytest.mark.parametrize(("status", "runs"), [(Status.INTERRUPTED, 1), (Status.FAILED, 0)])
def test_what_another_runner_has_stopped_is_taken_over(status, runs, tmp_path):
    one = experiment(tmp_path, "fixed")
    planned = plan([one], tmp_path)
    folder = tmp_path / planned[0].id
    write_outcome(folder, replace(run_one(one.specs[0], tmp_path), status=status))
    assert launch([one], planned, tmp_path, data_root=None).total() == runs
    assert read_outcome(folder).status is (Status.BUDGET_REACHED if runs else status)


def order_of(folder, *, device):
    return Order(
        [write_config(folder, "fixed")], overrides=(), seeds=None, device=device, out=folder / "runs", data_root=None,
        again_invalid=False,
    )  # fmt: skip


def test_a_configuration_that_was_changed_while_it_ran_is_one_line(tmp_path):
    journal = Journal.new()
    order = order_of(tmp_path, device="cpu")
    for _ in range(2):
        work(order, journal=journal, dry_run=True)
    write_config(tmp_path, "adam")
    with pytest.raises(ConfigError, match="was changed while it ran; repeat the command"):
        work(order, journal=journal, dry_run=True)


def test_the_device_is_what_it_was_when_the_command_began(tmp_path):
    journal = Journal.new()
    journal.note("device", "cuda")
    order = order_of(tmp_path, device="auto")
    with pytest.raises(DeviceLostError, match="the GPU that the command began with is gone"):
        work(order, journal=journal, dry_run=True)


def test_a_run_that_leaves_the_gpu_unusable_has_failed_and_asks_for_another_process(tmp_path, monkeypatch):
    failing(monkeypatch)
    monkeypatch.setattr(bench.command.run_series, "is_answering", lambda device: False)
    both, journal = experiment(tmp_path, "fixed", "oho-full"), Journal.new()
    with pytest.raises(DeviceLostError, match="it left the GPU unusable"):
        launch([both], plan([both], tmp_path), tmp_path, data_root=None, journal=journal)
    again = plan([both], tmp_path, tried=journal.tried)
    assert [item.is_done for item in again] == [True, False]


def test_what_a_death_left_beside_a_result_is_removed_and_nothing_goes_on_from_it(tmp_path):
    one = experiment(tmp_path, "fixed")
    outcome = run_one(one.specs[0], tmp_path)
    (item,) = plan([one], tmp_path)
    leftovers = [tmp_path / item.id / CHECKPOINT, tmp_path / item.id / f".{CHECKPOINT}.part"]
    for again_invalid in (False, True):
        for path in leftovers:
            path.write_bytes(b"left")
        if again_invalid:
            write_outcome(tmp_path / item.id, replace(outcome, invalid_because=("disturbed",)))
        planned = plan([one], tmp_path, again_invalid=again_invalid)
        launch([one], planned, tmp_path, data_root=None)
        assert not any(path.exists() for path in leftovers)
    assert read_outcome(tmp_path / item.id).conditions["resumptions"] == 0


def test_a_checkpoint_of_a_run_that_another_runner_has_begun_again_is_left_alone(tmp_path):
    one = experiment(tmp_path, "fixed")
    run_one(one.specs[0], tmp_path)
    (item,) = plan([one], tmp_path)
    (tmp_path / item.id / CHECKPOINT).write_bytes(b"at work")
    with claimed(tmp_path / item.id):
        launch([one], [item], tmp_path, data_root=None)
    assert (tmp_path / item.id / CHECKPOINT).exists()


def test_a_run_that_another_runner_begins_again_while_it_is_looked_at_has_no_outcome(tmp_path, monkeypatch):
    one = experiment(tmp_path, "fixed")
    run_one(one.specs[0], tmp_path)

    def begun_again(path, remedy):
        path.unlink()
        return read_object(path, remedy)

    monkeypatch.setattr(bench.records.run_folder, "read_object", begun_again)
    assert [item.outcome for item in plan([one], tmp_path)] == [None]


# How processes are started


def test_a_process_that_asks_for_another_one_in_its_place_gets_it(tmp_path):
    """The second one finds a mistake in the command, which it was given, too."""
    answer = watched_over(0, "", f"raise SystemExit({RENEW})", write_config(tmp_path, "fixed"), "--seeds", "a")
    assert answer.returncode == 2, answer.stderr
    assert "--seeds a: whole numbers from 0 on are expected" in answer.stderr


def test_a_system_that_starts_no_more_processes_is_one_line(tmp_path):
    answer = watched_over(0, "refused", "", write_config(tmp_path, "fixed"))
    assert answer.returncode == 1
    told = "no process can be started (Resource temporarily unavailable); repeat the command when one can be"
    assert answer.stderr == f"oho-bench: {told}\n"


def test_how_the_process_that_works_has_ended_is_known_whatever_the_command_inherits(tmp_path):
    def prepare():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.close(2)

    assert oho_bench("run", tmp_path / "none.yaml", "--seeds", "a", preexec_fn=prepare).returncode == 2


def test_a_pipe_in_the_place_of_a_file_is_one_line(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe.yaml")
    answer = CliRunner().invoke(app, ["run", str(pipe)])
    assert answer.exit_code == 2
    assert f"{pipe}: a regular file is expected; --in-process reads a pipe, too" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
