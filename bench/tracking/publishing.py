"""Sending views to Weights & Biases: workspaces of projects, and reports.

A view of the same name is replaced.  A project that is not there is not made: it would be an empty one beside that of the
runs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.records import ReportError
from bench.tracking import wandb_settings
from bench.tracking.wandb_settings import prepared

WORKSPACE, REPORT = "project-view", "runs"
"""What W&B calls the types of views."""
LOOK_UP = """
    query Views($entityName: String, $projectName: String, $viewType: String, $viewName: String) {
        project(name: $projectName, entityName: $entityName) {
            allViews(viewType: $viewType, viewName: $viewName) { edges { node { id } } }
        }
    }
"""


def publish_views(views: Mapping[str, Any], *, entity: str | None) -> Iterator[str]:
    """Sends the workspaces and the report of `views` and yields the address of each.

    Without an `entity`, they go to that of the environment, or to the user's own.  Raises `ReportError` with W&B's reason.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        try:
            account = _Account(Path(scratch), entity)
            for view in views["workspaces"]:
                account.send(view, WORKSPACE)
                yield account.address(f"?nw={view['name'].removeprefix('nw-').removesuffix('-v')}", view)
            report = views["report"]
            identity = account.send({**report, "project": report["project"]["name"]}, REPORT)
            title = quote(report["displayName"].replace(" ", "-"), safe="-")
            yield account.address(f"/reports/{title}--{identity}", {"project": report["project"]["name"]})
        except ReportError:
            raise
        except Exception as error:  # whatever W&B raises, its reason is all that helps
            raise ReportError(f"W&B: {_reason(error)}") from None


class _Account:
    """A connection to W&B as the user whom the environment names."""

    def __init__(self, scratch: Path, entity: str | None):
        self._api = prepared(scratch).Api()
        self._entity = entity or wandb_settings.entity() or self._api.default_entity or ""

    def send(self, view: Mapping[str, Any], kind: str) -> str:
        """Creates or replaces a view and returns its id."""
        from wandb_workspaces.reports.v2 import gql

        place = {"entityName": self._entity, "projectName": view["project"]}
        project = self._ask(LOOK_UP, {**place, "viewType": kind, "viewName": view["name"]})["project"]
        if project is None:
            raise ReportError(
                f"W&B: no project {self._entity}/{view['project']} that you may use; upload runs with `oho-bench sync`, "
                "or name another with --entity and --project"
            )
        edges = project["allViews"]["edges"]
        sent = {
            **place, "id": edges[0]["node"]["id"] if edges else None, "type": kind, "name": view["name"],
            "displayName": view["displayName"], "description": view.get("description", ""),
            "spec": json.dumps(view["spec"]),
        }  # fmt: skip
        return self._ask(gql.upsert_view, sent)["upsertView"]["view"]["id"]

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        from wandb_workspaces._graphql import execute_graphql

        return execute_graphql(self._api, query, variables)

    def address(self, rest: str, view: Mapping[str, Any]) -> str:
        """Returns where a view is opened."""
        from wandb_workspaces._graphql import get_app_url

        return f"{get_app_url(self._api).rstrip('/')}/{self._entity}/{view['project']}{rest}"


def _reason(error: Exception) -> str:
    """Returns what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
