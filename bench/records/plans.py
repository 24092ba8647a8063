"""Writes the plans of a results folder, `experiments/NAME.json`, and reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bench.records.errors import RecordError, ReportError
from bench.records.json_files import write_json
from bench.records.schema import MANIFEST, read_checked

ARCHIVE = "records.tar.xz"
"""What an archive is called that stands in a folder in the place of its runs; see `bench.records.archive`."""
DEFAULT_PROJECT = "oho-bench"
"""The W&B project of runs whose plan, of an older version, names none."""


@dataclass(frozen=True)
class Manifest:
    """An experiment's plan: its name, the figures it feeds, its resolved configuration, its run ids.

    `project` is the W&B project in which its runs are tracked, `trial_runs` the number of a search's trials that are runs
    there; both are None in plans of older versions.  `mode` is that of the file, or None if it has none.
    """

    experiment: str
    figures: tuple[str, ...]
    config: Mapping[str, Any]
    runs: tuple[str, ...]
    project: str | None = None
    trial_runs: int | None = None
    mode: str | None = None


def planned_specs(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the spec of each run of a resolved configuration, in the order they run.

    Seeds are outermost: an interrupted experiment has all methods at the first seeds, so that it can already be compared.
    """
    common = {key: value for key, value in config.items() if key not in ("methods", "shocks", "seeds", "figures")}
    for seed, method, shock in product(config["seeds"], config["methods"], (None, *config["shocks"])):
        yield {**common, "method": method, "seed": seed, **({"shock": shock} if shock else {})}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Writes an experiment's plan, replacing an older plan of the same name."""
    folder = root / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{manifest.experiment}.json", asdict(manifest))


def read_manifests(root: Path) -> list[Manifest]:
    """Returns the plan of every experiment in a results folder, by name."""
    manifests = []
    for path in sorted((root / "experiments").glob("*.json")):
        content = read_checked(path, MANIFEST, "remove this file and run the experiment again")
        config, figures, runs = dict(content["config"]), tuple(content["figures"]), tuple(content["runs"])
        config.setdefault("seeds", [])
        tracked = content.get("project"), content.get("trial_runs"), content.get("mode")
        manifests.append(Manifest(content["experiment"], figures, config, runs, *tracked))
    return manifests


def check_results_folder(root: Path) -> None:
    """Raises `RecordError` if what a user has named cannot be a results folder, saying what it is."""
    if (root / "spec.json").exists():
        parent = root.resolve().parent
        raise RecordError(f"{root}: this is the folder of one run; give the results folder that holds it, {parent}")
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "no such folder"
        raise RecordError(f"{root}: {problem}; give a results folder, as in `oho-bench run CONFIG --out DIR`")


def experiments_in(root: Path) -> list[Manifest]:
    """Returns the plans in a folder that a user has named; raises `RecordError` if it holds none, saying what it is."""
    check_results_folder(root)
    manifests = read_manifests(root)
    if not manifests:
        if (root / ARCHIVE).exists():
            problem = f"holds an archive of runs, which this command does not read; use `tar -xf {root / ARCHIVE} -C DIR`"
            raise RecordError(f"{root}: {problem}")
        if any(root.glob("*/spec.json")):
            problem = "holds runs but no list of them, experiments/NAME.json"
            raise RecordError(f"{root}: {problem}; `oho-bench run CONFIG --out {root}` writes it")
        inner = sorted({path.parent.name for held in ("experiments", ARCHIVE) for path in root.glob(f"*/{held}")})
        what = f"give one of those in it: {', '.join(inner)}" if inner else f"use `oho-bench run CONFIG --out {root}`"
        raise RecordError(f"{root}: no experiment has been run into this folder; {what}")
    return manifests


def project_of(manifests: Sequence[Manifest]) -> str:
    """Returns the W&B project in which all runs of some plans are tracked.  Raises `ReportError` if there are several."""
    found = sorted({manifest.project or DEFAULT_PROJECT for manifest in manifests})
    if len(found) > 1:
        raise ReportError(f"the runs are tracked in the projects {', '.join(found)}; choose one with --project")
    return found[0]
