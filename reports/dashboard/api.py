"""What the command line calls: a results folder's dashboards as a page, as JSON, and as what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.records import ReportError
from bench.records.files import write_output
from bench.records.plans import project_of
from reports.dashboard.plan import dashboards
from reports.dashboard.preview import write_preview
from reports.output import check_writable
from reports.tables import read_tables

MISSING = "dashboards need the package wandb-workspaces; install it with: pip install 'oho-bench[dashboard]'"


def preview_dashboards(results: Path, output: Path) -> None:
    """Writes a page that shows the workspaces with the folder's own data.  Raises `ReportError`."""
    check_writable(output, ".html")
    write_preview(dashboards(read_tables(results)), output)


def write_views(results: Path, output: Path, *, entity: str | None, project: str | None) -> None:
    """Writes as JSON what would be published.  Raises `ReportError`."""
    check_writable(output, ".json")
    content = views(results, entity=entity, project=project)
    write_output(output, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def views(results: Path, *, entity: str | None, project: str | None) -> dict[str, Any]:
    """Returns workspaces and report as W&B stores them, for the project in which the runs are tracked if none is given.

    Raises `ReportError` where nothing was measured, where the package is missing, or where runs are in several projects.
    """
    try:
        from reports.dashboard.wandb_views import views as views_of
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "wandb_workspaces":
            raise
        raise ReportError(MISSING) from None
    tables = read_tables(results)
    place = project or project_of(tables.manifests)
    return views_of(dashboards(tables), entity=entity or "", project=place)
