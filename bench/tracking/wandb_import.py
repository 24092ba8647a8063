"""`oho-bench import-wandb`: makes a results folder of what Weights & Biases keeps, so that figures need nothing else.

A run's W&B run has in its configuration the plan of its experiment, in its rows the lines of its records, and in its summary
its outcome, all of them as JSON (`bench.records.wandb_names`).  They come from W&B's own files, online or offline ones, or
from a project on a server.  What is not there, such as folders, tracebacks and the files of plug-ins, is said in one line.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.records import (
    Manifest,
    Outcome,
    RecordError,
    RunWriter,
    Status,
    planned_specs,
    read_run,
    run_id,
    title_of,
    write_manifest,
)
from bench.records.schema import MANIFEST, OUTCOME as OUTCOME_SHAPE, SPEC, misfit, problem_of
from bench.records.wandb_names import OUTCOME, PLAN, RECORDS, TRIAL_NUMBER
from bench.tracking.transcripts import read_back
from bench.tracking.wandb_settings import PATIENCE, keep_to_folder, without_files

PROJECT = re.compile(r"[\w.-]+/[\w.-]+")
"""How a project on a server is named."""


@dataclass(frozen=True)
class Kept:
    """What W&B keeps of one run: its configuration, its summary, the `records` of its rows, and where that was found."""

    place: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """A run as it is written to a results folder, and the plan that it belongs to."""

    identity: str
    experiment: str
    plan: Mapping[str, Any]
    label: tuple[str, int]
    records: tuple[Mapping[str, Any], ...]
    outcome: Outcome


def import_wandb(source: str, out: Path) -> Iterator[str]:
    """Writes the runs of a file, a folder or a project `ENTITY/PROJECT` into a new folder, and yields what there is to say.

    Raises:
        RecordError: if there is nothing to import, or the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecordError(f"--out {out}: is not an empty folder; give a new one")
    newest: dict[str, _Read] = {}
    found = left = older = 0
    for kept in kept_in(source):
        found += 1
        try:
            run = _read(kept)
        except RecordError as error:
            left += 1
            yield f"left out: {error}"
            continue
        older += run.identity in newest
        if run.identity not in newest or newest[run.identity].outcome.finished < run.outcome.finished:
            newest[run.identity] = run
    if not newest:
        raise RecordError(f"{source}: {'no run of oho-bench can be imported' if found else 'holds no run of oho-bench'}")
    plans = _plans(newest)
    renamed = _write(out, plans, newest)
    counts = {"imported": len(newest), "left out": left, "older W&B runs of the same runs left out": older}
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    yield _lost(plans, renamed)


def kept_in(source: str) -> Iterator[Kept]:
    """Yields what W&B keeps of our runs, trials excepted: they are in their search's run as well."""
    if Path(source).exists():
        yield from _kept_in_files(Path(source))
    elif PROJECT.fullmatch(source):
        yield from _kept_on_server(source)
    else:
        raise RecordError(f"{source}: no such file or folder, and not ENTITY/PROJECT either")


def _kept_in_files(path: Path) -> Iterator[Kept]:
    for file in [path] if path.is_file() else sorted(path.rglob("run-*.wandb")):
        held = read_back(file)
        if held is None:
            yield Kept(str(file), {}, {}, ())
        elif TRIAL_NUMBER not in held.config and "run" in held.config:
            yield Kept(str(file), held.config, held.summary, tuple(row.get(RECORDS, "") for row in held.rows))


def _kept_on_server(project: str) -> Iterator[Kept]:
    import os

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        keep_to_folder(Path(scratch))
        for name, value in PATIENCE.items():
            os.environ.setdefault(f"WANDB_X_{name}", str(value))
        import wandb

        without_files(wandb.Settings)
        try:
            for run in wandb.Api().runs(project):
                if TRIAL_NUMBER not in run.config and "run" in run.config:
                    lines = tuple(row[RECORDS] for row in run.scan_history(keys=[RECORDS]))
                    yield Kept(f"{project}/{run.id}", run.config, dict(run.summary), lines)
        except Exception as error:  # whatever W&B raises, its reason is all that helps
            raise RecordError(f"W&B: {' '.join(str(error).split()) or type(error).__name__}") from None


def _read(kept: Kept) -> _Read:
    """Returns a run, after checking all that is written of it.  Raises `RecordError` for what is no ended run of ours."""
    if not kept.config:
        raise RecordError(f"{kept.place}: ends before its run does; the run was killed, or its file was cut")
    texts = kept.config.get(PLAN), kept.summary.get(OUTCOME)
    if not all(isinstance(text, str) for text in texts):
        raise RecordError(f"{kept.place}: has no {PLAN} and no {OUTCOME}; older versions did not send them")
    try:
        plan, content = map(json.loads, texts)
        records = tuple(json.loads(line) for text in kept.lines for line in text.splitlines())
    except ValueError as error:
        raise RecordError(f"{kept.place}: not as it was sent ({error})") from None
    problem = _problem(kept, plan, content, records)
    if problem:
        raise RecordError(f"{kept.place}: not as it was sent ({problem})")
    known = {field.name for field in fields(Outcome)}
    outcome = Outcome(**{**{key: content[key] for key in known & content.keys()}, "status": Status(content["status"])})
    config = kept.config
    return _Read(config["run"], config["experiment"], plan, (config["label"], int(config["seed"])), records, outcome)


def _problem(kept: Kept, plan: Any, content: Any, records: tuple[Any, ...]) -> str | None:
    """Returns what is wrong with what W&B keeps of a run, or None if nothing is."""
    config = kept.config
    if not isinstance(plan, dict) or not isinstance(content, dict):
        return "an object is expected"
    whole = {**plan, "experiment": config.get("experiment"), "runs": [config.get("run")]}
    try:
        specs = list(planned_specs(plan["config"]))
        label, seed = config["label"], int(config["seed"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return "the plan is incomplete"
    wrong = misfit(whole, MANIFEST) or next((wrong for spec in specs if (wrong := misfit(spec, SPEC))), None)
    if wrong is None and not any(run_id(spec) == config["run"] or _label(spec) == (label, seed) for spec in specs):
        wrong = "the plan has no such run"
    return wrong or misfit(content, OUTCOME_SHAPE) or next(filter(None, map(problem_of, records)), None)


def _label(spec: Mapping[str, Any]) -> tuple[str, int]:
    return title_of(spec), spec["seed"]


def _plans(runs: Mapping[str, _Read]) -> dict[str, Mapping[str, Any]]:
    """Returns each experiment's plan: that of its newest run, with the seeds of all of them."""
    plans: dict[str, Mapping[str, Any]] = {}
    for run in sorted(runs.values(), key=lambda run: run.outcome.finished):
        before = plans.get(run.experiment, {}).get("config", {}).get("seeds", [])
        seeds = sorted({*before, *run.plan["config"]["seeds"]})
        plans[run.experiment] = {**run.plan, "config": {**run.plan["config"], "seeds": seeds}}
    return plans


def _write(out: Path, plans: Mapping[str, Mapping[str, Any]], runs: Mapping[str, _Read]) -> int:
    """Writes plans and runs, and returns how many runs have another id, because their specs had folders."""
    specs = {name: list(planned_specs(plan["config"])) for name, plan in plans.items()}
    renamed = 0
    for run in runs.values():
        by_id = {run_id(spec): spec for spec in specs[run.experiment]}
        by_label = {_label(spec): spec for spec in specs[run.experiment]}
        spec = by_id.get(run.identity) or by_label[run.label]
        renamed += run.identity not in by_id
        writer = RunWriter(out, spec)
        for record in run.records:
            writer.append(record)
        writer.close(run.outcome)
        read_run(writer.folder)
    for name, plan in plans.items():
        identities = tuple(run_id(spec) for spec in specs[name])
        write_manifest(out, Manifest(name, tuple(plan["figures"]), plan["config"], identities))
    return renamed


def _lost(plans: Mapping[str, Mapping[str, Any]], renamed: int) -> str:
    """Says what could not be recovered."""
    lost = ["folders in names of files", "tracebacks", "checkpoints"]
    if '"hash"' in json.dumps(dict(plans)):
        lost.append("the files of plug-ins")
    also = f"; {renamed} runs have other ids, since these depended on folders" if renamed else ""
    return f"W&B does not keep {', '.join(lost[:-1])} and {lost[-1]}{also}"
