"""Killed anywhere and started again, a run ends as if nothing had happened."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from zlib import crc32

import pytest
import torch
from faults import command
from helpers import METHOD_LINES, ROOT, experiment, run_one, stopped, write_config
from killing import ends
from processes import begun, within_a_run

from bench.command.planning import plan
from bench.command.run_series import launch
from bench.experiment.expansion import load_experiment
from bench.process.run_lock import claimed
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import Status, read_manifests, read_outcome, read_run, run_id
from bench.records.json_files import sealed

FEW = ["oho-full", "random-search"]
SHOCKS = "shocks:\n  - events: [{epoch: 2, rotate: 90}, {epoch: 4, set: {lr: 0.3}}, {epoch: 5, label_noise: 0.2}]\n"


def check(found, count):
    assert len(found) == count
    assert [line["method"] for line in found if not (line["same"] and line["accounts"])] == []
    assert {tuple(line["files"]) for line in found} == {("outcome.json", "records.jsonl", "spec.json")}
    assert sum(line["killed"] for line in found) > 0


def test_killed_runs_end_as_if_nothing_had_happened(tmp_path):
    specs = experiment(tmp_path, *FEW).specs
    check(list(ends(specs, tmp_path, kills=1, seed=1)), len(FEW))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_method_survives_kills_at_random_times(tmp_path, capsys):
    specs = experiment(tmp_path, *sorted(METHOD_LINES), overrides=["budget.steps=300"]).specs
    found = list(ends(specs, tmp_path, kills=4, seed=2))
    check(found, len(METHOD_LINES))
    hit, resumed = (sum(line[key] for line in found) for key in ("killed", "resumed"))
    with capsys.disabled():
        print(f"\n{len(found)} methods, killed {hit} times at work, gone on from a checkpoint {resumed} times")
    assert hit >= 50
    assert resumed >= 30


@pytest.mark.slow
def test_shocks_survive_a_kill(tmp_path):
    path = write_config(tmp_path, "oho-global", "random-search")
    path.write_text(path.read_text() + SHOCKS)
    specs = [spec for spec in load_experiment(path).specs if "shock" in spec]
    check(list(ends(specs, tmp_path, kills=4, seed=3)), 2)


def test_a_signal_ends_the_step_and_the_run_goes_on(tmp_path):
    spec = experiment(tmp_path, "oho-global").specs[0]
    left = stopped(spec, tmp_path, 3)
    assert left.outcome.status is Status.INTERRUPTED
    assert 0 < left.outcome.steps < 60
    assert (tmp_path / run_id(spec) / CHECKPOINT).exists()
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.conditions["resumptions"] == 1
    assert not (tmp_path / run_id(spec) / CHECKPOINT).exists()
    whole = run_one(spec, tmp_path / "whole")
    assert outcome.final["test_loss"] == whole.final["test_loss"]


def test_counted_seconds_go_on_and_the_accounts_sum_to_the_wall_time(tmp_path):
    spec = {**experiment(tmp_path, "fixed").specs[0], "budget": {"unit": "seconds", "amount": 0.4}}
    left = stopped(spec, tmp_path, 5).outcome
    assert 0 < left.counted_seconds < 0.4
    outcome = run_one(spec, tmp_path)
    seconds = [record["counted_seconds"] for record in read_run(tmp_path / run_id(spec)).records]
    assert seconds == sorted(seconds)
    assert 0.4 <= outcome.counted_seconds < 0.5
    assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds)
    assert outcome.wall_seconds > left.wall_seconds


def test_work_after_the_last_checkpoint_is_told_and_booked_as_lost(tmp_path, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    stopped(spec, tmp_path, 3)
    records, checkpoint = (tmp_path / run_id(spec) / name for name in ("records.jsonl", CHECKPOINT))
    total = sum(torch.load(checkpoint, weights_only=True)["seconds"].values())
    later = {**read_run(tmp_path / run_id(spec)).records[-1], "wall_seconds": total + 7}
    line, _ = sealed(later, crc32(records.read_bytes()))
    with open(records, "ab") as file:
        file.write(line + b'{"kind": "evaluation", "torn')
    os.utime(checkpoint, (0, 0))  # a night between two commands is no work
    assert read_run(tmp_path / run_id(spec)).torn
    outcome = run_one(spec, tmp_path)
    assert caplog.messages == [
        f"{records.parent}: continues from its checkpoint and redoes 2 records, the last one torn; 7.0 s of work lost"
    ]
    assert outcome.accounts["lost"] == pytest.approx(7, abs=0.01)
    assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds)
    assert not read_run(tmp_path / run_id(spec)).torn


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "of another version": lambda path: torch.save({"version": -1}, path),
    "not a mapping": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_run_starts_anew(damage, tmp_path, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    stopped(spec, tmp_path, 3)
    DAMAGES[damage](tmp_path / run_id(spec) / CHECKPOINT)
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.conditions["resumptions"] == 0
    assert "cannot be used" in caplog.text
    assert "\n" not in caplog.messages[0]


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def test_no_pickle_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = experiment(tmp_path, "fixed").specs[0]
    stopped(spec, tmp_path, 3)
    torch.save({"version": 1, "method": Evil()}, tmp_path / run_id(spec) / CHECKPOINT)
    assert run_one(spec, tmp_path).status is Status.BUDGET_REACHED
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: text.replace("0.", "1.", 1)], ids=["gone", "changed"])
def test_records_that_are_not_those_of_the_checkpoint_start_the_run_anew(damage, tmp_path, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    stopped(spec, tmp_path, 3)
    path = tmp_path / run_id(spec) / "records.jsonl"
    path.write_text(damage(path.read_text()))
    assert run_one(spec, tmp_path).conditions["resumptions"] == 0
    assert "cannot be used (its records are damaged); the run starts over" in caplog.text
    assert not read_run(tmp_path / run_id(spec)).torn


def test_a_run_belongs_to_one_runner_and_is_free_when_it_dies(tmp_path):
    with claimed(tmp_path / "run") as first, claimed(tmp_path / "run") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "run") as again:
        assert again
    holder = f"from pathlib import Path; import time\nfrom bench.process.run_lock import claimed\n" \
             f"with claimed(Path({str(tmp_path / 'run')!r})): print('mine', flush=True); time.sleep(60)"  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, cwd=ROOT)
    process.stdout.readline()
    with claimed(tmp_path / "run") as ours:
        assert not ours
    process.kill()
    process.wait()
    with claimed(tmp_path / "run") as ours:
        assert ours
    assert list((tmp_path / "run").iterdir()) == []


def test_two_runners_share_a_folder(tmp_path):
    """Each run is made once; the one that comes second takes what is left."""
    config = write_config(tmp_path, "oho-global", "oho-full", "oho-default", "oho-layerwise")
    words = ["run", config, "--out", tmp_path / "runs", "--set", "budget.steps=100"]
    if not (other := os.fork()):
        try:
            theirs = command(*words)
            (tmp_path / "told").write_text(theirs.stderr)
            os._exit(theirs.exit_code)
        finally:
            os._exit(1)
    within_a_run(tmp_path / "runs", records=1)
    ours = command(*words)
    ended = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])
    assert [ended, ours.exit_code] == [0, 0], ours.stderr
    told = [(tmp_path / "told").read_text(), ours.stderr]
    made = [text.count("budget reached") for text in told]
    assert sum(made) == 4
    assert min(made) > 0
    outcomes = [read_outcome(path.parent) for path in (tmp_path / "runs").glob("*/spec.json")]
    assert [outcome.status for outcome in outcomes] == [Status.BUDGET_REACHED] * 4


def test_runners_that_begin_at_once_lose_no_plan(tmp_path):
    begin, go = os.pipe()
    everyone, children = [experiment(tmp_path, "fixed", seeds=[seed]) for seed in range(8)], []
    for mine in everyone:
        children.append(os.fork())
        if children[-1] == 0:
            try:
                os.close(go)
                os.read(begin, 1)
                launch([mine], [], tmp_path / "runs", data_root=None)
                os._exit(0)
            finally:
                os._exit(1)
    os.close(go)
    os.close(begin)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    (plan,) = read_manifests(tmp_path / "runs")
    assert plan.config["seeds"] == list(range(8))
    assert len(plan.runs) == 8


def test_a_runner_takes_over_what_another_has_left(tmp_path, monkeypatch, capsys):
    """The other one dies after its run was found taken, and before this runner has ended its own."""
    both = experiment(tmp_path, "fixed", seeds=[0, 1])
    planned = plan([both], tmp_path)
    with contextlib.ExitStack() as other:
        assert other.enter_context(claimed(tmp_path / planned[0].id))
        monkeypatch.setattr("bench.command.progress.Display.end", lambda *arguments: other.close())
        assert launch([both], planned, tmp_path, data_root=None) == {Status.BUDGET_REACHED: 2}
    with claimed(tmp_path / planned[0].id):
        again = [replace(item, outcome=None, is_done=False) for item in planned]
        assert launch([both], again[:1], tmp_path, data_root=None) == {}
    assert f"{planned[0].id} Fixed: another runner has it" in capsys.readouterr().err


@pytest.mark.slow
def test_one_signal_stops_in_order_and_the_same_command_goes_on(tmp_path):
    config = write_config(tmp_path, "oho-full")
    process = begun("run", config, "--out", tmp_path / "runs", "--set", "budget.steps=4000")
    records = tmp_path / "runs" / run_id(experiment(tmp_path, "oho-full", overrides=["budget.steps=4000"]).specs[0])
    assert within_a_run(tmp_path / "runs", records=3) == records
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130
    assert "repeat the command to continue" in told
    assert "Traceback" not in told
    assert (records / CHECKPOINT).exists()
