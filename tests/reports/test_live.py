"""The live page: what is read of a folder that is being filled, what is served of it, and to whom."""

import http.client
import json
import os
import threading
from contextlib import contextmanager

import pytest
from faults import command, the_line
from helpers import rewrite
from made_up_runs import evaluation, incumbent, part_of, spec_of, write_folder, write_run

from bench.command.watch import Server
from bench.records import Manifest, RunWriter, Status, write_manifest
from reports.dashboard.plan import dashboards
from reports.live import api
from reports.live.api import Live
from reports.tables import read_tables

HOSTILE = "</script><b>x"
FEW = {("oho-global", None): [[0.3]], ("random-search", "fixed"): [[0.9]], ("fixed", None): [[0.9]]}


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(api, "LEAST_SECONDS", 0.0)


def shown(live):
    return json.loads(live.data())


def write_plan(root, *ids, **config):
    write_manifest(root, Manifest("live", (), config, ids))


def begin(root, spec, *losses):
    """A run that is going on."""
    writer = RunWriter(root, spec)
    (writer.folder / ".claim").touch()
    for step, loss in enumerate(losses, 1):
        writer.append(evaluation(50 * step, loss))
    return writer


def cells(data, *titles):
    (row,) = data["progress"]["rows"]
    return [row["cells"][data["progress"]["header"].index(title)] for title in titles]


# ---- what is read


def test_runs_appear_as_they_go_on(tmp_path, at_once):
    live = Live(tmp_path)
    assert "waiting" in shown(live)["problems"][0]
    write_plan(tmp_path, write_run(tmp_path, spec_of("fixed", 0), [evaluation(100, 0.5), evaluation(200, 0.4)]))
    writer = begin(tmp_path, spec_of("oho-global", 0), 0.9)
    write_plan(tmp_path, *(path.parent.name for path in tmp_path.glob("*/spec.json")), "0" * 16)
    data = shown(live)
    assert data["problems"] == []
    assert cells(data, "Done", "Running", "Queued", "Counted time left") == ["1 of 3", "1", "1", "4 s"]
    assert data["running"]["rows"][0]["cells"] == ["Global OHO", "0", "0.5 of 2 counted seconds", "0.9", writer.id]
    (view,) = data["views"]
    assert view["table"]["rows"] == [["Fixed", "training", "1", "0.4", "0.4 to 0.4"]]
    assert live.data(data["version"]) is None  # nothing is new
    with (writer.folder / "records.jsonl").open("ab") as file:
        file.write(b'{"kind": "evaluation", ')  # the beginning of a line
    assert live.data(data["version"]) is None
    os.truncate(writer.folder / "records.jsonl", (writer.folder / "records.jsonl").stat().st_size - 23)
    writer.append(evaluation(100, 0.3))
    after = shown(live)
    assert after["running"]["rows"][0]["cells"][2:4] == ["1 of 2 counted seconds", "0.3"]
    lines = {trace["name"]: trace for trace in after["views"][0]["charts"][0]["chart"]["data"]}
    assert lines["Fixed"]["x"][-1] == 2.0
    assert lines["Global OHO"]["x"][-1] <= 1.0  # its last value is not held to the end


def test_only_new_lines_are_read(tmp_path, at_once, monkeypatch):
    writer = begin(tmp_path, spec_of("fixed", 0), *[0.5] * 5)
    write_plan(tmp_path, writer.id)
    live = Live(tmp_path)
    live.data()
    read = []
    monkeypatch.setattr("bench.records.following.orjson.loads", lambda line: read.append(line) or json.loads(line))
    writer.append(evaluation(300, 0.25))
    assert shown(live)["running"]["rows"][0]["cells"][3] == "0.25"
    assert len(read) == 1


def test_a_resumed_run_has_no_record_twice(tmp_path, at_once):
    spec = spec_of("fixed", 0)
    writer = begin(tmp_path, spec, 0.5)
    write_plan(tmp_path, writer.id)
    kept = writer.durable()
    writer.append(evaluation(100, 0.2))
    live = Live(tmp_path)
    assert shown(live)["running"]["rows"][0]["cells"][3] == "0.2"
    writer.close()
    again = RunWriter(tmp_path, spec, keep=kept)
    for step in (90, 120):  # the file is longer than before
        again.append(evaluation(step, 0.4))
    row = shown(live)["running"]["rows"][0]["cells"]
    assert row[2:4] == ["1.2 of 2 counted seconds", "0.4"]
    (folder,) = (run for run in live._folder.runs.values())
    assert folder.columns["used"] == [0.5, 0.9, 1.2]


def test_damage_is_named_and_the_rest_is_shown(tmp_path, at_once):
    good, changed, cut = (write_run(tmp_path, spec_of("fixed", seed), [evaluation(100, 0.5)]) for seed in range(3))
    (tmp_path / changed / "outcome.json").write_text("{")
    os.truncate(tmp_path / cut / "records.jsonl", 10)
    write_plan(tmp_path, good, changed, cut)
    live = Live(tmp_path)
    for _ in range(2):
        data = shown(live)
        assert cells(data, "Done", "Damaged") == ["1 of 3", "2"]
        assert f"{changed}/outcome.json:1:" in data["problems"][0]
    (tmp_path / "experiments" / "live.json").write_text("[]")
    assert "live.json:1:1" in shown(live)["problems"][0]


def test_records_of_older_versions_are_read(tmp_path, at_once):
    identity = write_run(tmp_path, spec_of("fixed", 0), [evaluation(100, 0.5)])
    rewrite(tmp_path / identity / "records.jsonl", lambda text: text)
    write_plan(tmp_path, identity)
    assert cells(shown(Live(tmp_path)), "Done", "Damaged") == ["1 of 1", "0"]


def test_failures_are_listed_the_last_one_first(tmp_path, at_once):
    ids = [
        write_run(tmp_path, spec_of("fixed", seed), [evaluation(1, 0.5)], status=Status.FAILED, message=f"E\nno {seed}",
                  environment={"finished": f"2026-01-0{seed + 1}T03:04:05+00:00"})
        for seed in (0, 1)
    ]  # fmt: skip
    write_plan(tmp_path, *ids)
    data = shown(Live(tmp_path))
    assert [row[3] for row in data["troubles"]["rows"]] == ["no 1", "no 0"]
    assert cells(data, "Failed", "Wall time left") == ["2", "0 s"]


def test_colours_and_order_are_those_of_the_figures(tmp_path, at_once):
    ids = write_folder(tmp_path, FEW)
    plan = {"methods": [part_of("cosine")], "seeds": [0]}
    before = [(group.label, group.colour) for group in dashboards(read_tables(tmp_path))[0].groups]
    found = [tuple(group.values()) for group in shown(Live(tmp_path))["views"][0]["groups"]]
    assert found == before
    write_manifest(tmp_path, Manifest("both", (), plan, tuple(ids)))
    groups = shown(Live(tmp_path))["views"][0]["groups"]
    assert "Cosine" in [group["label"] for group in groups]  # planned, and not begun


def test_learning_rates_are_drawn_by_set(tmp_path, at_once):
    records = [{**evaluation(100 * step, 0.5), "hyper": {"lr": [0.1, 0.2 * step]}} for step in (1, 2)]
    write_plan(tmp_path, write_run(tmp_path, spec_of("oho-layerwise", 0), [incumbent(100, 0.5), *records]))
    (view,) = shown(Live(tmp_path))["views"]
    (chart,) = (chart for chart in view["charts"] if chart["title"] == "Learning rate by set")
    assert [trace["name"] for trace in chart["chart"]["data"]] == ["Layer-wise OHO, set 0", "Layer-wise OHO, set 1"]


def test_looking_takes_no_more_than_its_share(tmp_path):
    write_folder(tmp_path, {("fixed", None): [[0.9]]})
    live = Live(tmp_path)
    live.data()
    live._next, live._spare = 0.0, -1.0
    first = live.data()
    assert live._next - live._looked > 0.9 / api.SHARE
    write_plan(tmp_path)
    assert live.data() == first


# ---- what is served


@contextmanager
def serving(root):
    with Server(0) as server:
        server.content = Live(root)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def asked(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_page_and_its_data_are_served_and_nothing_else(tmp_path):
    spec = spec_of("fixed", 0)
    spec["method"]["label"] = HOSTILE
    write_plan(tmp_path, identity := write_run(tmp_path, spec, [evaluation(100, 0.5)]))
    with serving(tmp_path) as port:
        answer, page = asked(port, "/")
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert HOSTILE.encode() not in page
        for landmark in (b"<main>", b"<header>", b'lang="en"', b'aria-labelledby="progress-title"', b'role="status"'):
            assert landmark in page
        answer, body = asked(port, "/data.json")
        assert answer.headers["Content-Type"] == "application/json"
        data = json.loads(body)
        assert data["views"][0]["groups"][0]["label"] == HOSTILE
        assert asked(port, f"/data.json?seen={data['version']}")[0].status == 204
        for path in (f"/{identity}/spec.json", "/../", f"/{tmp_path}/{identity}/outcome.json", "/experiments/live.json"):
            assert asked(port, path)[0].status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert asked(port, "/data.json", method)[0].status == 501


@pytest.mark.parametrize(("host", "status"), [
    ("localhost:9999", 200), ("127.0.0.1", 200), ("rebound.example", 403), ("127.0.0.1.example:80", 403), ("[", 403),
])  # fmt: skip
def test_other_names_of_this_machine_are_refused(host, status, tmp_path):
    with serving(tmp_path) as port:
        assert asked(port, "/data.json", Host=host)[0].status == status


def test_mistakes_are_one_line(tmp_path):
    assert "no such folder" in the_line(command("watch", tmp_path / "nowhere"), 2)
    assert "not a folder" in the_line(command("watch", __file__), 2)
    with Server(0) as server:
        port = server.server_address[1]
        line = the_line(command("watch", tmp_path, "--port", port), 2)
    assert line == f"oho-bench: --port {port}: is in use; choose another one, or 0 for any that is free"


def test_ctrl_c_ends_it(tmp_path, monkeypatch):
    def stopped(server, poll_interval):
        assert server.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", stopped)
    monkeypatch.setattr(os, "nice", lambda amount: amount)
    answer = command("watch", tmp_path)
    assert answer.exit_code == 130
    assert "no experiment has been run into this folder yet" in answer.stdout
