"""Weights & Biases offline, read back from its own files on disk."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import experiment
from made_up_runs import evaluation, moment, spec_of, write_run

from bench.records import Status, read_run, run_id
from bench.run.runner import run
from bench.tracking.transcripts import transcripts
from bench.tracking.wandb_sink import WandbSink, open_sink

WANDB = Path(sys.executable).with_name("wandb")


def tracked(spec, folder):
    sink = partial(open_sink, mode="offline", project="test", experiment="small")
    return run(spec, folder, data_root=None, open_sink=sink)


def inspect(folder):
    """The records of every W&B run below a folder, each a list of objects."""
    runs = []
    for path in sorted(folder.glob("**/run-*.wandb")):
        answer = subprocess.run([WANDB, "leet", "inspect", "--json", path], capture_output=True, text=True, check=True)
        runs.append([json.loads(line) for line in answer.stdout.splitlines() if line.strip()])
    return runs


@pytest.mark.skipif(not WANDB.exists() and not shutil.which("wandb"), reason="the wandb command is not installed")
def test_a_run_is_read_back_with_history_and_config(tmp_path, monkeypatch):
    """Whatever run or project the user's variables name."""
    for name in ("RUN_ID", "PROJECT", "SWEEP_ID"):
        monkeypatch.setenv(f"WANDB_{name}", "leak")
    spec = experiment(tmp_path, "oho-global").specs[0]
    tracked(spec, tmp_path)
    assert list(tmp_path.glob("*/wandb/*run-*leak*")) == []
    (content,) = inspect(tmp_path / run_id(spec))
    text = json.dumps(content)
    evaluations = read_run(tmp_path / run_id(spec)).evaluations
    assert text.count('"history"') >= len(evaluations) == 7
    assert run_id(spec) in text
    assert "leak" not in text
    assert "incumbent_validation_loss" in text
    assert "hyper/lr" in text
    assert "counted_seconds" in text


@pytest.mark.skipif(not WANDB.exists() and not shutil.which("wandb"), reason="the wandb command is not installed")
def test_each_trial_of_a_search_is_a_run_of_its_own(tmp_path):
    spec = experiment(tmp_path, "random-search", overrides=["budget.steps=20"]).specs[0]
    outcome = tracked(spec, tmp_path)
    assert outcome.trials == 2
    assert len(inspect(tmp_path / run_id(spec))) == outcome.trials + 1


def test_a_tracker_that_fails_never_fails_a_run(tmp_path, monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise OSError("no room")

    monkeypatch.setattr(WandbSink, "_log_evaluation", refuse)
    spec = experiment(tmp_path, "fixed").specs[0]
    assert tracked(spec, tmp_path).status is Status.BUDGET_REACHED
    assert len([r for r in caplog.records if "no longer tracked" in r.message]) == 1
    assert len(read_run(tmp_path / run_id(spec)).evaluations) == 7


def test_nothing_private_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY_FILE", "s3cret-value")
    spec = experiment(tmp_path, "fixed").specs[0]
    tracked(spec, tmp_path)
    folder = tmp_path / run_id(spec)
    for name in ("spec.json", "records.jsonl", "outcome.json"):
        text = (folder / name).read_text()
        assert "s3cret-value" not in text
        assert str(Path.home()) + "/" not in text


@pytest.mark.parametrize(("family", "runs"), [("search", 3), ("restarts", 3), ("population", 1)])
def test_trials_are_runs_of_their_own_whatever_family_a_search_is_of(family, runs, tmp_path):
    spec = spec_of("random-search", seed=0, over="fixed")
    spec["method"]["family"] = family
    trials = [
        {"kind": "trial", **moment(100 * (trial + 1), 0.5, trial), "steps": 100, "status": "finished", "hyper": {}}
        for trial in range(2)
    ]
    identity = write_run(tmp_path, spec, [evaluation(100, 0.5), *trials])
    assert len(transcripts(read_run(tmp_path / identity), experiment="small")) == runs


def test_names_are_within_the_limits_of_wandb():
    """128 characters for a run and a group, 64 for a tag; names that are shortened differ as they did before."""
    seen = []

    def begin(**fields):
        seen.append(fields)
        return SimpleNamespace()

    for end in "ab":
        spec = spec_of("fixed", 0)
        spec["method"] |= {"name": f"mine.py:{'M' * 90}", "label": f"{'L' * 150}{end}{'L' * 49}"}
        WandbSink("0" * 16, spec, begin=begin, project="test", experiment="e" * 100)
    assert all(len(fields["name"]) <= 128 and len(fields["group"]) <= 128 for fields in seen)
    assert all(1 <= len(tag) <= 64 for fields in seen for tag in fields["tags"])
    assert seen[0]["name"] != seen[1]["name"]
    assert seen[0]["name"].endswith(", seed 0")
