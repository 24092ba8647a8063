"""`oho-bench sync`: uploads a results folder's ended runs to Weights & Biases, so that W&B agrees with the records.

W&B's own files in a run's folder are uploaded unchanged if they hold exactly the rows of the records and the labels of the
plan, under the run's W&B id.  If they do not (lost, damaged, older than the records, tracking disabled or fallen back to
files), new files are written from the records under that id, so that they replace what W&B may already have of the run.
`ID/sync.json` remembers what was uploaded: a run is uploaded again only if its records or its labels changed, or to another
server, entity or project.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.process.run_lock import claimed
from bench.process.signals import Stopper
from bench.records import Manifest, Run, experiments_in, read_run, run_id, title_of
from bench.records.errors import RecordError
from bench.records.files import check_no_link, read, reason
from bench.records.json_files import write_json
from bench.records.labels import PlanLabels
from bench.records.wandb_names import TRIAL_RUNS, axis_of
from bench.tracking.report_run import FOLDER
from bench.tracking.transcripts import agreeing, is_own, read_back, replay, transcripts
from bench.tracking.wandb_runs import begin_run, identity_in, known_experiment, known_identity
from bench.tracking.wandb_settings import entity, server
from bench.tracking.wandb_upload import SyncError, UnreachableError, public, upload
from bench.tracking.wandb_words import why_unusable

MEMORY = "sync.json"
FAILURES = (SyncError, RecordError, OSError, ValueError, subprocess.TimeoutExpired)


@dataclass(frozen=True)
class Options:
    """The destination, if it is not the one in W&B's own files, and whether to ignore these files."""

    project: str | None = None
    entity: str | None = None
    recreate: bool = False
    dry_run: bool = False


def sync(root: Path, options: Options) -> bool:
    """Uploads what is not there yet and reports one line per run and a summary.  Returns whether nothing failed.

    Raises:
        RecordError: if the folder holds no experiment.
        Interrupted: after a signal; finished uploads are remembered.
    """
    if unusable := why_unusable():
        print(f"oho-bench: W&B cannot be used: {unusable}", file=sys.stderr)
        return False
    counts: Counter[str] = Counter()
    planned = _planned(root)
    with Stopper().listening():
        for identity, manifest in planned.items():
            title = ""
            if not (root / identity / "outcome.json").exists():
                counts["not ended"] += 1
                continue
            try:
                with nullcontext(True) if options.dry_run else claimed(root / identity) as is_ours:
                    if not is_ours:
                        raise SyncError("another process is using this run")
                    run = _as_tracked(read_run(root / identity), manifest)
                    title = f"{title_of(run.spec)}, seed {run.spec['seed']}: "
                    verdict = _bring_up(run, manifest, options)
            except UnreachableError as error:
                left = len(planned) - counts.total()
                print(f"oho-bench: W&B cannot be used: {error} ({left} of {len(planned)} runs are left)", file=sys.stderr)
                return False
            except FAILURES as error:
                verdict = _failed(error)
            counts[verdict.partition(":")[0]] += 1
            print(f"{identity}  {manifest.experiment}: {title}{verdict}", flush=True)
        if verdict := _bring_report_up(root / FOLDER, options):
            counts[verdict.partition(":")[0]] += 1
            print(f"{'report':16}  {verdict}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return not counts["failed"]


def _planned(root: Path) -> dict[str, Manifest]:
    """Returns the plan of every run.  A run that several share is tracked by one of them, which `wandb.json` names."""
    sharing: dict[str, list[Manifest]] = {}
    for manifest in experiments_in(root):
        for identity in manifest.runs:
            sharing.setdefault(identity, []).append(manifest)
    found = {}
    for identity, plans in sharing.items():
        experiment = known_experiment(root / identity) if len(plans) > 1 else None
        found[identity] = next((plan for plan in plans if plan.experiment == experiment), plans[0])
    return found


def _as_tracked(run: Run, manifest: Manifest) -> Run:
    """Returns a run with the spec that its tracker would be given now: labels and families are the plan's."""
    return replace(run, spec=PlanLabels(manifest.config).given_to(run.spec))


def _bring_up(run: Run, manifest: Manifest, options: Options) -> str:
    """Uploads an ended run if it is not there yet, and returns what was done."""
    memory, place = _remembered(run.folder), _place(options)
    content = _digest(*(read(run.folder / name) for name in ("spec.json", "records.jsonl", "outcome.json")))
    called = _digest(repr((manifest.experiment, title_of(run.spec), run.spec["method"].get("family"))).encode())
    known, _, known_as = memory.get(place, "").partition(" ")
    if known == content and known_as in (called, ""):  # memories of older versions do not say what it was called
        return "already there"
    expected = transcripts(run, experiment=manifest.experiment, trial_runs=_trial_runs(manifest))
    if expected is None:
        raise SyncError("the records do not hold what W&B needs")
    # Rows replace those that W&B has under the run's id, unless these are another result's.
    is_changed = known not in ("", content)
    identity = f"{run.id}-{content[:8]}" if is_changed else known_identity(run.folder, run.id)
    files = agreeing(run.folder, expected, only=f"{identity}*") if identity and not options.recreate else []
    verdict = "uploaded" if files else "re-created from records"
    if options.dry_run:
        return f"would be {verdict}"
    if not files:
        identity = identity or identity_in(run.folder, run.id, manifest.experiment)
        _recreate(run, identity, manifest)
        files = agreeing(run.folder, expected, only=f"{identity}*")
    if not files:
        raise SyncError("the files that W&B wrote from the records do not hold their rows")
    upload(files, project=options.project, entity=options.entity or entity())
    write_json(run.folder / MEMORY, {**memory, place: f"{content} {called}"})
    return f"{verdict}: the records have changed, and W&B keeps the older run as well" if is_changed else verdict


def _bring_report_up(folder: Path, options: Options) -> str:
    """Uploads a report that was tracked offline if it is not there yet, and returns what was done, if anything.

    W&B keeps an artifact's project in the file, so that the report cannot go elsewhere, as runs can.
    """
    files = [path for path in folder.glob("wandb/offline-run-*/run-*.wandb") if is_own(path)]
    if not files:
        return ""
    again = f"`oho-bench report {folder.parent} --track` makes it anew"
    try:
        place, memory, content = _place(options), _remembered(folder), _digest(*map(read, files))
        held = [read_back(path) for path in files]
        if memory.get(place) == content:
            return "already there"
        if any(each is None for each in held):
            raise SyncError(f"W&B's file has no end; {again}")
        if any(each and not each.is_for(options.entity, options.project) for each in held):
            return f"left out: it was tracked for another entity or project; {again}, with --entity and --project"
        if options.dry_run:
            return "would be uploaded"
        with claimed(folder) as is_ours:
            if not is_ours:
                raise SyncError("another process is tracking the report")
            upload(files, project=options.project, entity=options.entity or entity())
            write_json(folder / MEMORY, {**memory, place: content})
    except FAILURES as error:
        return _failed(error)
    return "uploaded"


def _failed(error: Exception) -> str:
    why = f"{error.filename}: {reason(error)}" if isinstance(error, OSError) and error.filename else str(error)
    return f"failed: {public(why)}"


def _place(options: Options) -> str:
    """Returns what stands for a destination in the memory."""
    return _digest(repr((server(), options.entity or entity(), options.project)).encode())


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:32]


def _remembered(folder: Path) -> dict[str, str]:
    """Returns the digest of what was uploaded, by destination; empty if the file cannot be read."""
    try:
        content = json.loads(read(folder / MEMORY))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recreate(run: Run, identity: str, manifest: Manifest) -> None:
    """Makes W&B write its files from the records, offline, in the place of earlier ones with the same id."""
    from bench.experiment.schema import Tracking

    check_no_link(run.folder / "wandb")
    for leftover in run.folder.glob(f"wandb/offline-run-*-{identity}*"):
        shutil.rmtree(leftover)
    begin = partial(begin_run, run.folder, mode="offline", identity=identity, axis=axis_of(run.spec))
    project, trial_runs = manifest.project or Tracking().project, _trial_runs(manifest)
    plan: dict[str, Any] = {"figures": manifest.figures, "config": manifest.config}
    if run_id(run.spec["method"]) not in map(run_id, manifest.config.get("methods") or ()):
        plan["specs"] = [run.spec]  # a sweep's trial
    replay(run, begin, project=project, experiment=manifest.experiment, trial_runs=trial_runs, plan=plan)


def _trial_runs(manifest: Manifest) -> int:
    return TRIAL_RUNS if manifest.trial_runs is None else manifest.trial_runs
