"""Weights & Biases offline, read back from its own files on disk."""

import json
import re
import socket
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from helpers import ROOT, StoppedAfter, experiment
from made_up_runs import evaluation, moment, spec_of, write_run
from wandb.util import get_core_path

from bench.process.signals import Interrupted
from bench.records import Status, read_run, run_id
from bench.records.wandb_names import CONFIG, MOST_SINGLE_SETS, SUMMARY, axis_of, group_of, metric, plain, scalar_metrics
from bench.run.runner import run
from bench.tracking.transcripts import read_back, transcripts
from bench.tracking.wandb_content import histogram, optimizer_of
from bench.tracking.wandb_sink import WandbSink, open_sink

METRIC = re.compile(r"[a-z0-9_/]{1,100}")


def tracked(spec, folder, *, stopper=None, **options):
    sink = partial(open_sink, mode="offline", project="test", experiment="small", **options)
    return run(spec, folder, data_root=None, open_sink=sink, stopper=stopper)


def files_of(folder):
    return sorted(folder.glob("*/wandb/*run-*/run-*.wandb"))


def said(path):
    """What W&B's own reader finds in a file, a JSON object a line."""
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", path, path.parents[1]]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_run_is_read_back(tmp_path, monkeypatch):
    """Whatever run or project the user's variables name, and without host, user and folders."""
    for name in ("RUN_ID", "PROJECT", "SWEEP_ID"):
        monkeypatch.setenv(f"WANDB_{name}", "leak")
    monkeypatch.setattr(socket, "gethostname", lambda: "a-telling-host")
    spec = experiment(tmp_path, "oho-global").specs[0]
    outcome = tracked(spec, tmp_path)
    (path,) = files_of(tmp_path)
    assert "leak" not in path.name
    held, records = read_back(path), read_run(tmp_path / run_id(spec))
    (expected,) = transcripts(records, experiment="small")
    assert (held.name, held.rows, held.tags) == (expected.name, expected.rows, expected.tags)
    flat = {key: value for key, value in held.config.items() if key in CONFIG and key != "spec"}
    start = records.evaluations[0]["hyper"]
    assert flat == {
        "experiment": "small", "run": run_id(spec), "label": "Global OHO", "method": "oho-global", "family": "online",
        "optimizer": "sgd", "task": "digits-mlp", "space": "fair", "seed": 0, "lr": start["lr"][0],
        "weight_decay": start["weight_decay"][0], "meta_rate": 1e-3, "budget": 60, "budget_unit": "steps",
        "device": "cpu", "protocol": spec["protocol"], "commit": outcome.environment["commit"],
    }  # fmt: skip
    assert held.config["spec"]["method"]["meta_rate"] == 1e-3
    names = {key for row in held.rows for key in row}
    assert names >= {"counted_seconds", "step", "epoch", "hyper/lr", "influence_norm/lr", "hypergradient/lr"}
    keys = {key for key in held.summary if not key.startswith("_")}
    assert all(map(METRIC.fullmatch, names | keys)), names | keys
    fixed = {key for key in SUMMARY if "/" not in key or key.startswith("last/")}
    assert fixed - keys - {"disturbed_because"} == {"invalid_because", "ended_trials"}
    assert held.summary["selected_test_loss"] == outcome.final["incumbent_test_loss"]
    assert held.summary["seconds/train"] == pytest.approx(outcome.accounts["train"])
    assert '"glob_name":"*"' in (text := said(path))
    assert '"step_metric":"step"' in text
    for private in ("a-telling-host", "leak", str(tmp_path), f"{Path.home()}/", f"{ROOT}/"):
        assert private.encode() not in path.read_bytes()


def test_a_search_is_a_run_with_a_table_and_its_first_trials_are_runs(tmp_path):
    spec = experiment(tmp_path, "random-search", overrides=["budget.steps=30"]).specs[0]
    assert tracked(spec, tmp_path, trial_runs=1).trials == 3
    held = {(back := read_back(path)).name: back for path in files_of(tmp_path)}
    expected = transcripts(read_run(tmp_path / run_id(spec)), experiment="small", trial_runs=1)
    assert {name: back.rows for name, back in held.items()} == {each.name: each.rows for each in expected}
    trial, search = (held[name] for name in sorted(held, key=len, reverse=True))
    assert trial.name == f"{search.name}, trial 0"
    told = {key: trial.config[key] for key in ("method", "search", "task", "seed", "trial", "family", "experiment")}
    assert told == {
        "method": "fixed", "search": "random-search", "task": "digits-mlp", "seed": 0, "trial": 0, "family": "search",
        "experiment": "small",
    }  # fmt: skip
    assert "lr" not in search.config
    (path,) = tmp_path.glob("*/wandb/*/files/media/table/*.json")
    table = json.loads(path.read_text())
    lines = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    trials = read_run(tmp_path / run_id(spec)).trials
    assert [line["trial"] for line in lines] == [0, 1, 2]
    assert [line["validation_loss"] for line in lines] == [each["validation_loss"] for each in trials]
    assert lines[0]["lr"] == trial.config["lr"] == trials[0]["hyper"]["lr"]


def test_a_run_that_is_continued_stays_one_wandb_run(tmp_path):
    """Its file then holds all rows; a run that is made anew after its end is another one."""
    spec = experiment(tmp_path, "fixed").specs[0]
    with pytest.raises(Interrupted):
        tracked(spec, tmp_path, stopper=StoppedAfter(4))
    (first,) = files_of(tmp_path)
    assert tracked(spec, tmp_path).status is Status.BUDGET_REACHED
    (path,) = files_of(tmp_path)
    assert path.name == first.name
    assert path.name.startswith(f"run-{run_id(spec)}-")
    (expected,) = transcripts(read_run(tmp_path / run_id(spec)), experiment="small")
    assert read_back(path).rows == expected.rows
    tracked(spec, tmp_path)
    (again,) = files_of(tmp_path)
    assert again.name != path.name


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


# What is told of runs that nobody has made


def only(folder, records, **changes):
    identity = write_run(folder, spec_of("oho-full", 0), records, **changes)
    (transcript,) = transcripts(read_run(folder / identity), experiment="small")
    return transcript


def test_diverged_and_invalid_runs_say_so(tmp_path):
    records = [evaluation(0, 2.0), {**evaluation(100, None), "hyper": {"lr": [None, 0.1]}}]
    held = only(tmp_path, records, status=Status.DIVERGED, invalid_because=["the machine slept"])
    assert held.summary["diverged"] is True
    assert held.summary["valid"] is False
    assert held.summary["invalid_because"] == "the machine slept"
    assert held.summary["nonfinite_values"] == 3  # two losses and a learning rate
    assert held.tags[-2:] == ["invalid", "diverged"]
    assert [row["nonfinite_values"] for row in held.rows] == [0, 3]


def test_many_sets_are_a_histogram_and_their_median(tmp_path):
    rates = [0.01 * number for number in range(1, MOST_SINGLE_SETS + 2)]
    record = {**evaluation(100, 1.0), "hyper": {"lr": rates, "weight_decay": rates[:2]}}
    (row,) = only(tmp_path, [record]).rows
    assert row["hyper/lr/median"] == pytest.approx(0.05)
    assert sum(row["hyper/lr/sets.values"]) == len(rates)
    assert row["hyper/lr/sets._type"] == "histogram"
    assert (row["hyper/weight_decay/0"], row["hyper/weight_decay/1"]) == (0.01, 0.02)


@pytest.mark.parametrize("values", [[0.1] * 9, [1.0, 1.0000000000000002], [0.0, 5e-324], [1e-4, 0.2, 0.3], [-1e308, 1e308]])
def test_a_histogram_is_one_that_wandb_takes(values):
    told = histogram(values)
    theirs = wandb.Histogram(np_histogram=(told["values"], told["bins"])).to_json()
    assert told == theirs
    assert sum(told["values"]) == len(values)
    assert (told["bins"][0], told["bins"][-1]) == (min(values), max(values))


def test_metrics_keep_to_the_rules_of_wandb():
    assert scalar_metrics(["influence_norm_lr", "skipped_influence", "shortened", "hypergradient_lr_3", "trials"]) == {
        "influence_norm_lr": "influence_norm/lr", "skipped_influence": "steps/skipped_influence",
        "shortened": "steps/shortened", "hypergradient_lr_3": "hypergradient/lr/3", "trials": "scalars/trials",
    }  # fmt: skip
    odd = scalar_metrics(["a-b", "a_b", "A.b", "größe", "x" * 300, "x" * 301])
    assert odd["a_b"] == "scalars/a_b"
    assert len(set(odd.values())) == len(odd)
    assert all(re.fullmatch(r"[a-z0-9_/]{1,120}", name) for name in odd.values())
    assert metric("environment/scikit-learn") == "environment/scikit_learn"


def test_folders_of_the_user_are_left_out(tmp_path):
    spec = spec_of("fixed", 0)
    spec["task"] |= {"name": "images", "path": "/home/me/pictures"}
    environment = {"finished": "2026-01-02T03:04:05+00:00", "data": "the images in /home/me/pictures", "a-b": "1"}
    identity = write_run(tmp_path, spec, [evaluation(0, 1.0)], environment=environment)
    (held,) = transcripts(read_run(tmp_path / identity), experiment="small")
    assert held.config["spec"]["task"]["path"] == "pictures"
    assert held.summary["environment/data"] == "the images in pictures"
    assert held.summary["environment/a_b"] == "1"


def test_the_optimizer_is_that_by_which_spaces_have_laws(tmp_path):
    """Of each of our methods, though what is tracked is read from its spec alone."""
    from bench.experiment.registries import METHODS
    from bench.experiment.spec import entry_of

    for name in METHODS:
        entry = entry_of("method", {"name": name})
        if not entry.repeats:
            options = entry.options.model_validate({"milestones": [1]} if name == "multistep" else {})
            part = {"name": name, "family": entry.family, **options.model_dump(mode="json")}
            assert optimizer_of(part) == options.optimizer_name, name


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


def test_a_group_is_the_seeds_of_one_method_on_one_task():
    spec = spec_of("random-search", 0, over="fixed")
    groups = {group_of("small", {**spec, "seed": seed}) for seed in range(3)}
    assert groups == {"small, digits-mlp, Random search, Fixed"}
    other = {**spec, "method": {**spec["method"], "label": "Random search, 2"}}
    assert group_of("small", other) not in groups
    assert plain("50% of a/b: \"c\" #1?", 128) == "50- of a-b, -c- -1-"
    assert axis_of(spec) == "counted_seconds"


def test_the_documentation_names_every_key():
    page = (ROOT / "docs/how-to/tracking.md").read_text()
    for name in (*CONFIG, *SUMMARY):
        assert f"`{name}`" in page, name
