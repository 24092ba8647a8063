"""Many runs: a large folder is read and reported in seconds, and what is read is exactly what was written."""

import json
import time
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest

from bench.command.status import describe
from bench.records import Manifest, Outcome, RecordError, Status, read_run, run_id, write_manifest
from bench.records.json_files import sealed
from reports.api import build_report
from reports.tables import read_tables

ONLINE = ("oho-global", "oho-layerwise", "oho-full", "oho-default")
TRAININGS = ("fixed", "step", "exponential", "cosine", "adam", *ONLINE)
SEARCHES = (("random-search", "fixed"), ("bayesian-search", "fixed"), ("random-search", "adam"))
METHODS = (*((name, None) for name in TRAININGS), *SEARCHES)
"""A method and what it searches over."""
FIGURES = ("distribution", "performance", "anytime", "profiles")
BUDGET = 4.0
EVALUATIONS, INCUMBENTS, TRIALS = 40, 10, 10
LAYERS = 6
DIFFERENT = 25
"""Seeds with records of their own; later seeds repeat them, so that a large folder is written quickly."""
DIMENSION = {"low": 0.0001, "high": 0.2, "log": True, "integer": False, "complement": False, "offset": 0.0}
SPACE = {
    "name": "fair",
    "hyperparameters": dict.fromkeys(("lr", "weight_decay", "step_size", "gamma", "momentum", "beta1", "beta2"), DIMENSION),
    "optimizers": {"schedule-free-sgd": {"lr": DIMENSION}},
}
ENVIRONMENT = {
    **{f"package-{n}": f"1.{n}.0" for n in range(16)}, "commit": "d15a7a3ae13910508c12f7012edd0d7c5a8b95df",
    "dirty": False, "data": "digits", "device_name": "test", "threads": 1, "finished": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
ACCOUNTS = ("train", "hypergradient", "selection", "search", "setup", "evaluation", "tracking", "runner")


def loss_at(place, variant, step):
    """Falls with the step; another one for each method (its place in METHODS) and variant."""
    return 2.3 * np.exp(-step / (300 + 40 * place)) + 0.05 + np.sin(1 + place + 12 * variant) / 100


def moment(place, variant, step, trial):
    loss = loss_at(place, variant, step)
    return {
        "space": "fair", "used": BUDGET * step / 2000, "step": step, "epoch": step / 10,
        "counted_seconds": BUDGET * step / 2000, "wall_seconds": BUDGET * step / 1900, "trial": trial,
        "validation_loss": loss, "test_loss": 1.02 * loss, "test_error": loss / 3,
    }  # fmt: skip


def hyper_of(name, loss):
    width = LAYERS if name == "oho-layerwise" else 1
    return {"lr": [loss / (n + 3) for n in range(width)], "weight_decay": [loss / (n + 3000) for n in range(width)]}


def scalars_of(name, loss, trial):
    if name not in ONLINE:
        return {"trials": float(trial)} if name.endswith("search") else {}
    return {
        "influence_norm_lr": 7 / loss, "influence_norm_weight_decay": 7000 / loss, "skipped_hypergradient": 0.0,
        "skipped_influence": 0.0, "shortened": 1.0,
    }  # fmt: skip


@cache
def records_of(place, variant):
    """40 evaluations, 10 incumbents and, of a search, 10 trials, in the order of a run."""
    name, over = METHODS[place]
    records, best = [], {}
    for index in range(EVALUATIONS):
        step = 2000 * (index + 1) // EVALUATIONS
        trial = index * TRIALS // EVALUATIONS if over else 0
        now = moment(place, variant, step, trial)
        loss = now["validation_loss"]
        if index % (EVALUATIONS // INCUMBENTS) == 0:
            records.append({"kind": "incumbent", **now})
            best = {f"incumbent_{key}": now[key] for key in ("validation_loss", "test_loss", "test_error")}
        records.append({
            "kind": "evaluation", **now, "train_loss": None if index == 0 else 0.9 * loss, **best,
            "hyper": hyper_of(name, loss), "scalars": scalars_of(name, loss, trial),
        })  # fmt: skip
        if over and index % (EVALUATIONS // TRIALS) == 3:
            records.append({
                **{key: value for key, value in now.items() if not key.startswith("test")}, "kind": "trial",
                "hyper": {"lr": loss / 3, "weight_decay": loss / 3000}, "steps": 200, "status": "finished",
                "curve": [loss * n for n in range(10, 0, -1)],
            })  # fmt: skip
    return records


def texts_of(place, variant):
    """Of a run: spec.json, with -1 for its seed, records.jsonl and outcome.json."""
    name, over = METHODS[place]
    method = {"name": name, "lr": None, "weight_decay": None, "optimizer": {"name": "sgd"}, "label": name.title()}
    if over:
        method |= {"over": {"name": over, "label": over.title()}, "label": f"{name}: {over}", "pruner": "none"}
    spec = {
        "protocol": 3, "task": {"name": "digits-mlp", "batch_size": 100, "validation_size": 359}, "space": SPACE,
        "budget": {"unit": "seconds", "amount": BUDGET}, "evaluations": EVALUATIONS, "device": "cpu", "threads": 1,
        "method": method, "seed": -1,
    }  # fmt: skip
    records = records_of(place, variant)
    final = next(record for record in reversed(records) if record["kind"] == "evaluation")
    outcome = Outcome(
        Status.BUDGET_REACHED, "", 2000, TRIALS if over else 0, BUDGET, 1.1 * BUDGET,
        dict.fromkeys(ACCOUNTS, 1.1 * BUDGET / len(ACCOUNTS)), final, ENVIRONMENT, {"running": 0.99},
    )  # fmt: skip
    lines, total = [], 0
    for record in records:
        line, total = sealed(record, total)
        lines.append(line.decode())
    return json.dumps(spec, indent=1), "".join(lines), json.dumps(asdict(outcome), indent=1)


def write_folder(root, runs):
    """So many runs, the methods by turns; returns their ids."""
    texts = cache(texts_of)
    ids = []
    for index in range(runs):
        seed, place = divmod(index, len(METHODS))
        spec, records, outcome = texts(place, seed % DIFFERENT)
        spec = spec.replace('"seed": -1', f'"seed": {seed}')
        ids.append(identity := run_id(json.loads(spec)))
        (root / identity).mkdir(parents=True)
        (root / identity / "spec.json").write_text(spec)
        (root / identity / "records.jsonl").write_text(records)
        (root / identity / "outcome.json").write_text(outcome)
    write_manifest(root, Manifest("many", FIGURES, {}, tuple(ids)))
    return ids


def processor_seconds(call):
    """Of this process: what else the machine does at the same time does not count.  The quicker of two."""
    took = []
    for _ in range(2):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return min(took)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_runs_are_read_in_ten_seconds(tmp_path):
    write_folder(tmp_path, 10_000)
    assert processor_seconds(lambda: describe(tmp_path)) < 3
    assert processor_seconds(lambda: read_tables(tmp_path)) < 10


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_runs_are_reported_in_fifteen_seconds(tmp_path, every_format):
    write_folder(tmp_path / "runs", 1_000)
    assert processor_seconds(lambda: build_report(tmp_path / "runs", tmp_path / "report.pdf")) < 15


def test_every_record_is_a_row_with_its_values(tmp_path):
    runs = 60
    ids = write_folder(tmp_path, runs)
    places = [(index % len(METHODS), index // len(METHODS) % DIFFERENT) for index in range(runs)]
    tables = read_tables(tmp_path)
    assert tables.runs["run"].tolist() == ids
    assert tables.runs["seed"].tolist() == [index // len(METHODS) for index in range(runs)]
    assert tables.runs["over"].notna().sum() == runs // 4
    for kind, table, each in (
        ("evaluation", tables.evaluations, runs * EVALUATIONS),
        ("incumbent", tables.incumbents, runs * INCUMBENTS),
        ("trial", tables.trials, runs // 4 * TRIALS),
    ):
        written = [
            (identity, record)
            for identity, place in zip(ids, places, strict=True)
            for record in records_of(*place)
            if record["kind"] == kind
        ]
        assert len(table) == len(written) == each
        assert table["run"].tolist() == [identity for identity, _ in written]
        for name in ("step", "trial", "used", "counted_seconds", "validation_loss"):
            assert table[name].tolist() == [record[name] for _, record in written]


def test_nested_values_are_columns_and_nan_where_a_method_has_none(tmp_path):
    write_folder(tmp_path, len(METHODS))
    tables = read_tables(tmp_path)
    evaluations = dict(iter(tables.evaluations.groupby("run")))
    for place, identity in enumerate(tables.runs["run"]):
        name, over = METHODS[place]
        first = evaluations[identity].iloc[0]
        loss = loss_at(place, 0, 2000 // EVALUATIONS)
        width = LAYERS if name == "oho-layerwise" else 1
        assert np.atleast_1d(first["hyper_lr"]).tolist() == [loss / (n + 3) for n in range(width)]
        assert np.isnan(first["scalar_influence_norm_lr"]) == (name not in ONLINE)
        assert np.isnan(first["scalar_trials"]) == (over is None)
        assert evaluations[identity]["train_loss"].isna().sum() == 1
    trial = tables.trials.iloc[0]
    assert len(trial["curve"]) == 10
    assert trial["hyper_lr"] == trial["validation_loss"] / 3


BROKEN = {
    "two records on a line": (lambda line: f"{line}, {line}\n", r":1:\d+: unexpected .+; a record is one JSON object"),
    "one record on two lines": (lambda line: "\n".join(line.rsplit(", ", 1)) + "\n", r":1:\d+: "),
    "no record on a line": (lambda line: f"{line}\n\n{line}\n", ":2:1: .* empty document"),
    "a list on a line": (lambda line: f"{line}\n[]\n", ":2:1: kind must be one of"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_is_parsed_at_once_and_its_damage_told_by_line(broken, tmp_path):
    (identity,) = write_folder(tmp_path, 1)
    write, words = BROKEN[broken]
    search = len(TRAININGS)
    (tmp_path / identity / "records.jsonl").write_text(write(json.dumps(records_of(search, 0)[-1])))
    with pytest.raises(RecordError, match=r"records\.jsonl" + words):
        read_run(tmp_path / identity)
