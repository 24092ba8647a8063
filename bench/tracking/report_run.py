"""A report as a W&B run: its figures as images, a table of the results, and as artifacts the files that it was made of.

The run's files are in the results folder's `tracked-report/`, what goes into artifacts included: W&B would stage them in
the user's own folders.  A report that is tracked again has the same W&B id, and so replaces itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process.run_lock import claimed
from bench.records import ReportError
from bench.records.files import check_no_link, storing
from bench.records.names import clipped
from bench.records.wandb_names import LONGEST_NAME, LONGEST_TAG, metric, plain
from bench.tracking.wandb_runs import bound_table, identity_in, plain_run
from bench.tracking.wandb_settings import be_impatient

FOLDER, REPORT = "tracked-report", "report"
"""Where its files are, and its job type."""
RESULTS = "results"
UPLOAD_SECONDS = 300
"""What an artifact, or the end of the run, may take."""


@dataclass(frozen=True)
class Bundle:
    """An artifact: its type, its files by their names in it, and further details.

    Each file's content is a function, so that a folder of any size is copied a file at a time.
    """

    kind: str
    files: Iterable[tuple[str, Callable[[], bytes]]]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class ReportContent:
    """What the W&B run of a report gets; `columns` and `lines` are those of the table of results."""

    experiments: Sequence[str]
    config: Mapping[str, Any]
    figures: Sequence[Path]
    columns: Sequence[str]
    lines: Sequence[Sequence[Any]]
    summary: Mapping[str, Any]
    bundles: Sequence[Bundle]


def track(root: Path, content: ReportContent, *, mode: str, project: str, entity: str | None) -> str:
    """Makes the W&B run of a report and returns where it is: its address or, offline, the folder of its files.

    Raises:
        ReportError: with W&B's reason, in one line.
        StorageError: if the results folder cannot be written.
    """
    folder = root / FOLDER
    with storing(folder), claimed(folder) as is_ours:
        if not is_ours:
            raise ReportError(f"{folder}: another process is tracking the report of this folder; repeat the command later")
        identity = identity_in(folder, REPORT, ", ".join(content.experiments))
        _discard_older(folder, identity)
        staged = [(bundle, _staged(bundle, folder / "artifacts" / bundle.kind)) for bundle in content.bundles]
        be_impatient()
        try:
            address = _sent(folder, identity, content, staged, mode=mode, project=project, entity=entity)
        except Exception as error:  # whatever W&B raises, its reason is all that helps
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise ReportError(f"W&B: {why}; the report is on disk, so repeat the command to track it") from None
        if mode == "online":
            shutil.rmtree(folder / "artifacts", ignore_errors=True)  # W&B has them
        return address


def _discard_older(folder: Path, identity: str) -> None:
    """Removes the files of the same W&B run that an earlier call made."""
    for name in ("wandb", "artifacts"):
        check_no_link(folder / name)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    for older in folder.glob(f"wandb/*run-*-{identity}"):
        shutil.rmtree(older)


def _staged(bundle: Bundle, folder: Path) -> list[tuple[str, Path]]:
    """Copies the files of an artifact into a folder and returns their names in the artifact and their places."""
    places = []
    for name, content in bundle.files:
        places.append((name, folder / name))
        places[-1][1].parent.mkdir(parents=True, exist_ok=True)
        places[-1][1].write_bytes(content())
    return places


def _sent(
    folder: Path, identity: str, content: ReportContent, staged: Sequence[tuple[Bundle, Sequence[tuple[str, Path]]]], *,
    mode: str, project: str, entity: str | None,
) -> str:  # fmt: skip
    name = plain(f"Report: {', '.join(content.experiments)}", LONGEST_NAME)
    run = plain_run(
        folder, mode=mode, identity=identity, name=name, project=project, entity=entity, job_type=REPORT,
        tags=[clipped(tag, LONGEST_TAG) for tag in dict.fromkeys((REPORT, *content.experiments))],
        config=dict(content.config), settings={"finish_timeout": UPLOAD_SECONDS, "finish_timeout_raises": True},
    )  # fmt: skip
    try:
        run.log(_row(run, content))
        run.summary.update(dict(content.summary))
        for bundle, places in staged:
            artifact = run.log_artifact(_artifact(f"{identity}-{bundle.kind}", bundle, places))
            if mode == "online":
                artifact.wait(UPLOAD_SECONDS)  # raises where it could not be uploaded
    except Exception:
        with suppress(Exception):
            run.finish(exit_code=1)
        raise
    address = run.url if mode == "online" else str(Path(run.dir).parent)
    run.finish()
    return address


def _row(run: Any, content: ReportContent) -> dict[str, Any]:
    """Returns the one row of a report's history."""
    import wandb

    images = {metric(f"figures/{path.stem}"): wandb.Image(str(path), caption=path.stem) for path in content.figures}
    return {**images, RESULTS: bound_table(run, RESULTS, run.step, content.columns, content.lines)}


def _artifact(name: str, bundle: Bundle, places: Sequence[tuple[str, Path]]) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=bundle.kind, metadata=dict(bundle.details))
    for file, place in places:  # they are copies already, which nobody changes
        artifact.add_file(str(place), name=file, policy="immutable", skip_cache=True)
    return artifact
