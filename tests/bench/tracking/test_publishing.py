"""Publishing views with the real wandb, against a small server: it proves what is sent, not what W&B accepts."""

import json

import pytest
from wandb_server import Server, client_of

from bench.records import ReportError
from bench.tracking.publishing import publish_views

VIEWS = {
    "workspaces": [{"name": "nw-0123-v", "displayName": "one", "project": "ours", "spec": {"of": "workspace"}}],
    "report": {"name": "abc", "displayName": "A report", "project": {"name": "ours"}, "spec": {"of": "report"}},
}


class Views(Server):
    """Keeps views by type and name, in projects that exist."""

    def __init__(self):
        super().__init__()
        self.views, self.projects = {}, {"ours"}

    def answer(self, path, content):
        content = {"variables": {}, **content}  # W&B's public client leaves them out where there are none
        told, query = content["variables"], content["query"]
        if "allViews" in query:
            is_known = (told["viewType"], told["viewName"]) in self.views
            known = [{"node": {"id": f"id-{told['viewName']}"}}] if is_known else []
            is_there = told["projectName"] in self.projects
            return {"data": {"project": {"allViews": {"edges": known}} if is_there else None}}
        if "upsertView" in query:
            self.views[told["type"], told["name"]] = told
            return {"data": {"upsertView": {"view": {"id": f"id-{told['name']}"}, "inserted": told["id"] is None}}}
        return super().answer(path, content)


@pytest.fixture
def server(tmp_path):
    """A server with a user of its own; W&B's client begins and ends with the test."""
    server = Views()
    with client_of(server, tmp_path):
        yield server


def test_views_are_sent_and_replaced_when_sent_again(server):
    addresses = list(publish_views(VIEWS, entity=None))
    assert addresses == [
        f"{server.address}/someone/ours?nw=0123", f"{server.address}/someone/ours/reports/A-report--id-abc",
    ]  # fmt: skip
    assert server.views.keys() == {("project-view", "nw-0123-v"), ("runs", "abc")}
    sent = server.views["project-view", "nw-0123-v"]
    assert json.loads(sent["spec"]) == {"of": "workspace"}
    assert (sent["entityName"], sent["projectName"], sent["displayName"], sent["id"]) == ("someone", "ours", "one", None)
    list(publish_views(VIEWS, entity="team"))
    again = server.views["runs", "abc"]
    assert (again["entityName"], again["id"]) == ("team", "id-abc")
    server.projects.clear()
    with pytest.raises(ReportError, match="no project someone/ours that you may use"):
        list(publish_views(VIEWS, entity=None))


def test_the_reason_of_a_refusal_is_one_line(server):
    server.refuse = {"graphql": 401}
    with pytest.raises(ReportError, match=r"^W&B: .*not with me$") as error:
        list(publish_views(VIEWS, entity=None))
    assert "\n" not in str(error.value)
