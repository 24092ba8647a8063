"""`oho-bench sync`: uploads a results folder's ended runs to Weights & Biases, so that W&B agrees with the records.

W&B's own files in a run's folder are uploaded unchanged if they hold exactly the rows of the records, under the run's W&B
id.  If they do not (lost, damaged, older than the records, tracking disabled or fallen back to files), new files are
written from the records under that id, so that they replace what W&B may already have of the run.  `ID/sync.json` remembers
what was uploaded: a run is uploaded again only if its records changed, or to another server, entity or project.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.process.run_lock import claimed
from bench.process.signals import Stopper
from bench.records import Manifest, Run, experiments_in, read_run, title_of
from bench.records.errors import RecordError
from bench.records.files import check_no_link, read, reason
from bench.records.json_files import write_json
from bench.records.labels import PlanLabels
from bench.records.wandb_names import TRIAL_RUNS, axis_of
from bench.tracking.transcripts import agreeing, replay, transcripts
from bench.tracking.wandb_runs import begin_run, identity_in, known_identity
from bench.tracking.wandb_settings import entity, server, sync_environment

MEMORY = "sync.json"
SET_UP = "View run"
"""What `wandb sync` prints when the server has accepted a run."""
SET_UP_SECONDS, SILENT_SECONDS = 20, 60
COMPLAINT = re.compile(r"^(?:wandb: ERROR|Error:) +(?!Find detailed)(?:\[.*?\] )?(.+?)(?:\. Some run data.*)?$", re.M)
HOPELESS = re.compile(r"giving up|timed out|no answer|dial tcp|api key|log(ged)? in|authentic|permission|\b40[13]\b", re.I)
"""Matches errors that the next run would meet as well."""


class SyncError(Exception):
    """A run that could not be uploaded."""


class UnreachableError(SyncError):
    """A server that is missing or does not know the user."""


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
    counts: Counter[str] = Counter()
    planned: dict[str, Manifest] = {}
    for manifest in experiments_in(root):
        planned |= {identity: manifest for identity in manifest.runs if identity not in planned}
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
                    run = read_run(root / identity)
                    title = f"{title_of(PlanLabels(manifest.config).given_to(run.spec))}, seed {run.spec['seed']}: "
                    verdict = _bring_up(run, manifest, options)
            except UnreachableError as error:
                left = len(planned) - counts.total()
                print(f"oho-bench: W&B cannot be used: {error} ({left} of {len(planned)} runs are left)", file=sys.stderr)
                return False
            except (SyncError, RecordError, OSError, subprocess.TimeoutExpired) as error:
                why = f"{error.filename}: {reason(error)}" if isinstance(error, OSError) and error.filename else str(error)
                verdict = f"failed: {_public(why)}"
            counts[verdict.partition(":")[0]] += 1
            print(f"{identity}  {manifest.experiment}: {title}{verdict}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return not counts["failed"]


def _bring_up(run: Run, manifest: Manifest, options: Options) -> str:
    """Uploads an ended run if it is not there yet, and returns what was done."""
    memory = _remembered(run.folder)
    place = _digest(repr((server(), options.entity or entity(), options.project)).encode())
    content = _digest(*(read(run.folder / name) for name in ("spec.json", "records.jsonl", "outcome.json")))
    if memory.get(place) == content:
        return "already there"
    expected = transcripts(run, experiment=manifest.experiment, trial_runs=_trial_runs(manifest))
    if expected is None:
        raise SyncError("the records do not hold what W&B needs")
    # Rows replace those that W&B has under the run's id, unless these are another result's.
    identity = f"{run.id}-{content[:8]}" if place in memory else known_identity(run.folder, run.id)
    files = agreeing(run.folder, expected, only=f"{identity}*") if identity and not options.recreate else []
    verdict = "uploaded" if files else "re-created from records"
    if options.dry_run:
        return f"would be {verdict}"
    if not files:
        identity = identity or identity_in(run.folder, run.id)
        _recreate(run, identity, manifest)
        files = agreeing(run.folder, expected, only=f"{identity}*")
    if not files:
        raise SyncError("the files that W&B wrote from the records do not hold their rows")
    _upload(files, options)
    write_json(run.folder / MEMORY, {**memory, place: content})
    return f"{verdict}: the records have changed, and W&B keeps the older run as well" if place in memory else verdict


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
    replay(run, begin, project=project, experiment=manifest.experiment, trial_runs=trial_runs)


def _trial_runs(manifest: Manifest) -> int:
    return TRIAL_RUNS if manifest.trial_runs is None else manifest.trial_runs


def _upload(files: Sequence[Path], options: Options) -> None:
    """Runs `wandb sync` and checks its output too, because it exits 0 and leaves its marker even if no row arrived."""
    markers = [path.with_name(f"{path.name}.synced") for path in files]
    for marker in markers:
        marker.unlink(missing_ok=True)
    places = {"project": options.project, "entity": options.entity or entity()}
    where = [f"--{name}={value}" for name, value in places.items() if value]
    said = _listen([*where, "--include-online", "--include-synced", *(str(path.resolve()) for path in files)])
    errors = COMPLAINT.findall(said)
    if not errors and all(marker.exists() for marker in markers):
        return
    errors = errors or ["no answer in time"]
    reason = _public(next((error for error in errors if "HTTP" in error), errors[0]))
    raise (UnreachableError if SET_UP not in said and HOPELESS.search(" ".join(errors)) else SyncError)(reason)


def _listen(arguments: Sequence[str]) -> str:
    """Returns all output of `wandb sync`, which is ended together with this process or if it is silent for too long."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        command, path = [sys.executable, "-P", "-m", "wandb", "sync", *arguments], Path(scratch, "said")
        with open(path, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, cwd=scratch, env=sync_environment(Path(scratch)), stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            _wait(process, path)
        finally:
            process.kill()
            process.wait()
        return path.read_text(encoding="utf-8", errors="replace")


def _wait(process: subprocess.Popen, path: Path) -> None:
    heard, last = 0, time.monotonic()
    while process.poll() is None and time.monotonic() - last < (SILENT_SECONDS if heard else SET_UP_SECONDS):
        time.sleep(0.05)
        said = path.read_text(encoding="utf-8", errors="replace")
        if SET_UP in said and len(said) > heard:
            heard, last = len(said), time.monotonic()


def _public(text: str) -> str:
    """Returns the text without server addresses, the home folder and anything that may be a key."""
    home = os.path.expanduser("~")  # noqa: PTH111  a home that is unknown is no error here
    text = re.sub(r'"?https?://[^\s"]+"?', "the server", text).replace(f"{home}/", "~/")
    return re.sub(r"\w{40,}", "[hidden]", text)
