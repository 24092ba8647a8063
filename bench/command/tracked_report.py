"""`oho-bench report --track`: gathers what the W&B run of a report gets."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bench.command.planning import origins
from bench.records import Manifest, ReportError
from bench.records.archive import archive_at
from bench.records.files import read
from bench.records.frames import Frames, read_frames
from bench.records.plans import project_of
from bench.records.plugins import stored
from bench.records.wandb_names import BEST_VALIDATION_LOSS, COUNTED_SECONDS, SELECTED_TEST_ERROR, SELECTED_TEST_LOSS
from bench.run.environment import commit_of, tracked_files
from bench.tracking.report_run import Bundle, ReportContent, track
from bench.tracking.wandb_content import without_folders

COLUMNS = {
    "experiment": "experiment", "task": "task", "method": "label", "seed": "seed", "status": "status",
    SELECTED_TEST_LOSS: "incumbent_test_loss", SELECTED_TEST_ERROR: "incumbent_test_error",
    BEST_VALIDATION_LOSS: "incumbent_validation_loss", COUNTED_SECONDS: "counted_seconds", "run": "run",
}  # fmt: skip
"""The table of results: its columns, and those of `bench.results` that they are."""
SOURCES = ("bench", "baselines", "oho", "reports", "configs", "pyproject.toml")
Files = Iterator[tuple[str, Callable[[], bytes]]]


def track_report(root: Path, files: Sequence[Path], *, entity: str | None, project: str | None) -> str:
    """Tracks a report that was written as `files`, PDF and page first, and returns where it is in W&B.

    It goes to the project in which the runs are tracked, if none is given, and is online if the runs are.  Raises
    `ReportError`, and `StorageError` if the results folder cannot be written.
    """
    if archive := archive_at(root):
        raise ReportError(f"--track: {archive} is an archive; `tar -xf {archive} -C DIR` makes a results folder of it")
    frames = read_frames(root)
    project = project or project_of(frames.manifests)
    return track(root, _content(root, frames, files), mode=mode_of(frames.manifests), project=project, entity=entity)


def mode_of(manifests: Sequence[Manifest]) -> str:
    """Returns online if some runs are tracked online, and offline otherwise, even for runs that are not tracked."""
    usual = os.environ.get("WANDB_MODE")
    return "online" if any((manifest.mode or usual) == "online" for manifest in manifests) else "offline"


def _content(root: Path, frames: Frames, files: Sequence[Path]) -> ReportContent:
    source = Path(__file__).resolve()
    commit, has_changes = commit_of(source)
    made_with = sorted({str(outcome.environment.get("commit")) for outcome in frames.outcomes.values()})
    code = {"commit": commit, "has_changes": has_changes, "commits_of_runs": made_with}
    counts = Counter(frames.runs.drop_duplicates("run")["status"])
    folder = files[0].with_suffix("")
    return ReportContent(
        experiments=[manifest.experiment for manifest in frames.manifests],
        config={"experiments": [manifest.experiment for manifest in frames.manifests], **code},
        figures=[file for file in files if file.suffix == ".png"],
        columns=list(COLUMNS),
        lines=_lines(frames.runs),
        summary={f"runs/{status.replace(' ', '_')}": count for status, count in counts.items()},
        bundles=[
            Bundle("report", _report(files, folder), {}),
            Bundle("records", _records(root, frames), {"runs": counts.total()}),
            Bundle("configuration", _configurations(frames.manifests), {}),
            Bundle("code", _code(root, source.parents[2], frames.manifests), code),
        ],
    )  # fmt: skip


def _lines(runs: pd.DataFrame) -> list[list[Any]]:
    """Returns the rows of the table of results, in which None stands for what is not known."""
    table = runs.reindex(columns=list(COLUMNS.values())).astype({"seed": "Int64"}).astype(object)
    return table.where(table.notna(), None).to_numpy().tolist()


def _report(files: Sequence[Path], folder: Path) -> Files:
    """Yields the PDF and the page under the same names for every report, and the figures in a folder."""
    for file in files:
        yield (f"figures/{file.name}" if file.parent == folder else f"report{file.suffix}"), file.read_bytes


def _records(root: Path, frames: Frames) -> Files:
    """Yields a results folder that can be read as this one, without checkpoints and the user's folders."""
    for manifest in frames.manifests:
        yield (name := f"experiments/{manifest.experiment}.json"), partial(_public, root / name)
    for identity in frames.specs:
        for name in (f"{identity}/spec.json", f"{identity}/outcome.json"):
            if (root / name).exists():
                yield name, partial(_public, root / name)
        if (root / identity / "records.jsonl").exists():
            yield (name := f"{identity}/records.jsonl"), partial(read, root / name)


def _public(path: Path) -> bytes:
    return json.dumps(without_folders(json.loads(read(path))), indent=1).encode()


def _configurations(manifests: Sequence[Manifest]) -> Files:
    for manifest in manifests:
        yield f"{manifest.experiment}.yaml", partial(_yaml, manifest)


def _yaml(manifest: Manifest) -> bytes:
    """Returns an experiment's configuration with everything that its file leaves to defaults."""
    content = {"experiment": manifest.experiment, **manifest.config, "figures": list(manifest.figures)}
    text, writer = io.BytesIO(), YAML()
    writer.default_flow_style = False
    writer.dump(without_folders(content), text)
    return text.getvalue()


def _code(root: Path, checkout: Path, manifests: Sequence[Manifest]) -> Files:
    """Yields our sources, if they are of a checkout, and the plug-ins that the results folder keeps."""
    for name in tracked_files(checkout, *SOURCES):
        if (checkout / name).is_file():
            yield name, (checkout / name).read_bytes
    for origin in {origin["hash"]: origin for manifest in manifests for origin in origins(manifest.config)}.values():
        if "file" in origin and stored(root, origin).exists():
            yield f"plugins/{origin['hash']}/{origin['file']}", partial(read, stored(root, origin))
