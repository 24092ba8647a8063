"""`oho-bench import-wandb`: makes a results folder of what Weights & Biases keeps, so that figures need nothing else.

A run's W&B run has in its configuration the plan of its experiment, in its rows the lines of its records, and in its
summary its outcome, all of them as JSON (`bench.records.wandb_names`).  They come from W&B's own files, or from a project
on a server.  What is not there, such as folders, tracebacks and the files of plug-ins, is said in one line.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from subprocess import SubprocessError
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
from bench.records.durations import plural
from bench.records.labels import differ_in_labels_alone
from bench.records.names import checked_experiment
from bench.records.schema import MANIFEST, SPEC, misfit, problem_of
from bench.records.schema import OUTCOME as OUTCOME_SHAPE
from bench.records.wandb_names import OUTCOME, PLAN, RECORDS, TRIAL_NUMBER
from bench.tracking.transcripts import read_back
from bench.tracking.wandb_settings import prepared

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
    planned: _Planned
    spec: Mapping[str, Any]
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
    manifests = _manifests(newest.values())
    renamed = _write(out, manifests, newest.values())
    counts = {"imported": len(newest), "left out": left, "older W&B runs of the same runs left out": older}
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    yield _lost(manifests.values(), renamed)


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
        try:
            held = read_back(file)
        except (ValueError, SubprocessError):
            held = None
        if held is None:
            yield Kept(str(file), {}, {}, ())
        elif TRIAL_NUMBER not in held.config and "run" in held.config:
            yield Kept(str(file), held.config, held.summary, tuple(row.get(RECORDS, "") for row in held.rows))


def _kept_on_server(project: str) -> Iterator[Kept]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        wandb = prepared(Path(scratch))
        try:
            for run in wandb.Api().runs(project):
                if TRIAL_NUMBER not in run.config and "run" in run.config:
                    rows = run.scan_history()  # with keys of our choice, W&B might sample them
                    lines = tuple(row.get(RECORDS, "") for row in rows)
                    yield Kept(f"{project}/{run.id}", run.config, dict(run.summary), lines)
        except Exception as error:  # whatever W&B raises, its reason is all that helps
            raise RecordError(f"W&B: {' '.join(str(error).split()) or type(error).__name__}") from None


@dataclass(frozen=True)
class _Planned:
    """A plan as it was sent, and its runs by id and by label and seed."""

    figures: tuple[str, ...]
    config: Mapping[str, Any]
    by_id: Mapping[str, Mapping[str, Any]]
    by_label: Mapping[tuple[str, int], Mapping[str, Any]]


@lru_cache(maxsize=64)
def _planned(text: str) -> _Planned:
    """Returns a plan that was checked.  Most runs of an experiment have the same one.  Raises ValueError."""
    plan = json.loads(text)
    try:
        specs = plan.get("specs") or list(planned_specs(plan["config"]))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("the plan is incomplete") from None
    wrong = misfit({**plan, "experiment": "", "runs": []}, MANIFEST)
    wrong = wrong or next((wrong for spec in specs if (wrong := misfit(spec, SPEC))), None)
    if wrong:
        raise ValueError(wrong)
    figures, by_label = tuple(plan["figures"]), {(title_of(spec), spec["seed"]): spec for spec in specs}
    return _Planned(figures, plan["config"], {run_id(spec): spec for spec in specs}, by_label)


def _read(kept: Kept) -> _Read:
    """Returns a run, after checking all that is written of it.  Raises `RecordError` for what is no ended run of ours."""
    if not kept.config:
        raise RecordError(f"{kept.place}: ends before its run does; the run was killed, or the file was cut")
    texts = kept.config.get(PLAN), kept.summary.get(OUTCOME)
    if not all(isinstance(text, str) for text in texts):
        raise RecordError(f"{kept.place}: has no {PLAN} or no {OUTCOME}; older versions did not send them")
    try:
        experiment, planned = checked_experiment(kept.config.get("experiment")), _planned(kept.config[PLAN])
        label = str(kept.config.get("label")), int(kept.config.get("seed", -1))
        spec = planned.by_id.get(kept.config["run"]) or planned.by_label.get(label)
        if spec is None:
            raise ValueError("the plan has no such run")
        records = tuple(json.loads(line) for text in kept.lines for line in text.splitlines())
        outcome = _outcome(json.loads(kept.summary[OUTCOME]))
        if wrong := next(filter(None, map(problem_of, records)), None):
            raise ValueError(wrong)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{kept.place}: not as it was sent ({error})") from None
    return _Read(kept.config["run"], experiment, planned, spec, records, outcome)


def _outcome(content: dict[str, Any]) -> Outcome:
    """Returns an outcome that was checked.  Raises ValueError or TypeError."""
    if wrong := misfit(content, OUTCOME_SHAPE):
        raise ValueError(wrong)
    return Outcome(**{**content, "status": Status(content["status"])})


def _manifests(runs: Iterable[_Read]) -> dict[str, Manifest]:
    """Returns each experiment's plan as repeated calls of `oho-bench run` would have left it."""
    manifests: dict[str, Manifest] = {}
    for run in sorted(runs, key=lambda run: run.outcome.finished):
        name, config = run.experiment, dict(run.planned.config)
        identities, older = tuple(run.planned.by_id), manifests.get(name)
        if older and differ_in_labels_alone({**older.config, "seeds": config["seeds"]}, config):
            identities = (*older.runs, *identities)
            config["seeds"] = sorted({*older.config["seeds"], *config["seeds"]})
        manifests[name] = Manifest(name, run.planned.figures, config, tuple(dict.fromkeys(identities)))
    return manifests


def _write(out: Path, manifests: Mapping[str, Manifest], runs: Iterable[_Read]) -> int:
    """Writes plans and runs, and returns how many runs have another id, because their specs had folders."""
    renamed = 0
    for run in runs:
        writer = RunWriter(out, run.spec)
        renamed += writer.id != run.identity
        for record in run.records:
            writer.append(record)
        writer.close(run.outcome)
        read_run(writer.folder)
    for manifest in manifests.values():
        write_manifest(out, manifest)
    return renamed


def _lost(manifests: Iterable[Manifest], renamed: int) -> str:
    """Says what could not be recovered."""
    lost = ["folders in names of files", "tracebacks", "checkpoints"]
    if any('"place"' in json.dumps(manifest.config) for manifest in manifests):
        lost.append("the files of plug-ins")
    also = f"; the ids of {plural(renamed, 'run')} changed, since they depended on folders" if renamed else ""
    return f"W&B does not keep {', '.join(lost[:-1])} and {lost[-1]}{also}"
