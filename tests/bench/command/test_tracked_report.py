"""`oho-bench report --track` with the real wandb: offline, read back from its files, and against a small server.

The server takes everything in the shape that wandb expects: it proves what the client sends, not what W&B accepts.
"""

import json
from pathlib import Path

import pytest
import wandb
from helpers import ROOT
from made_up_runs import evaluation, spec_of, write_run
from ruamel.yaml import YAML
from typer.testing import CliRunner
from wandb_artifacts import ArtifactServer
from wandb_server import KEY, keep_variables

from bench.cli import app
from bench.command import tracked_report
from bench.command.tracked_report import mode_of, track_report
from bench.records import Manifest, ReportError, Status, read_runs, write_manifest
from bench.run.environment import tracked_files
from bench.tracking.transcripts import read_back

PICTURE = ROOT / "tests/reports/images"


@pytest.fixture
def results(tmp_path):
    """A results folder in which a run ended, one failed and one is missing; its data are in the user's own folder."""
    root = tmp_path / "runs"
    task = {"name": "image-folder", "data": {"name": "own", "path": "/home/someone/pictures", "content": "0" * 16}}
    specs = [{**spec_of("fixed", seed), "task": task} for seed in (0, 1)]
    error = 'Traceback:\n  File "/home/someone/my code/own.py", line 1\nValueError: no /home/someone/x\n'
    ids = [
        write_run(root, specs[0], [evaluation(step, 1 / (1 + step)) for step in (0, 10)]),
        write_run(root, specs[1], [], status=Status.FAILED, message=error),
    ]
    config = {"task": task, "methods": [specs[0]["method"]], "seeds": [0, 1, 2]}
    write_manifest(root, Manifest("small", (), config, (*ids, "f" * 16), project="test"))
    return root


@pytest.fixture
def files(tmp_path):
    """The files of a report that somebody has built."""
    png = next(PICTURE.rglob("*.png")).read_bytes()
    contents = {"first.pdf": b"%PDF", "first.html": b"<html>", "first/any-time.png": png, "first/any-time.csv": b"a,b"}
    (tmp_path / "first").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


@pytest.fixture
def private():
    """W&B's variables are as before after the test, and the clone's sources are few."""
    with pytest.MonkeyPatch.context() as patch:
        keep_variables(patch)
        patch.setattr(tracked_report, "SOURCES", ("bench/records",))
        yield patch


@pytest.fixture
def server(private, tmp_path):
    server = ArtifactServer()
    private.setenv("WANDB_API_KEY", KEY)
    private.setenv("WANDB_BASE_URL", server.address)
    private.setenv("HOME", str(tmp_path / "home"))
    yield server
    server.listener.shutdown()


@pytest.fixture
def online(server, private):
    wandb.teardown()  # it remembers another server
    private.setenv("WANDB_MODE", "online")
    yield server
    wandb.teardown()


def track(results, files, **place):
    return track_report(results, files, **{"entity": None, "project": None, **place})


def staged(results):
    folder = results / "tracked-report/artifacts"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_offline_it_is_a_run_with_images_results_and_artifacts(results, files, private):
    """A second call replaces the first, and `sync` would take it to the same place alone."""
    first = Path(track(results, files))
    place = Path(track(results, files, project="other"))
    assert place.parent == first.parent == results / "tracked-report/wandb"
    (path,) = results.glob("tracked-report/wandb/*run-*/run-*.wandb")
    assert path.parent == place
    assert first.name.split("-")[-2:] == place.name.split("-")[-2:]
    held = read_back(path)
    assert (held.name, held.project, held.tags) == ("Report, small", "other", ["report", "small"])
    assert held.summary["runs/failed"] == held.summary["runs/missing"] == held.summary["runs/budget_reached"] == 1
    (row,) = held.rows
    assert row["figures/any_time._type"] == "image-file"
    assert row["results._type"] == "table-file"
    (table,) = place.glob("files/media/table/*.json")
    content = json.loads(table.read_text())
    lines = [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]
    assert [(line["status"], line["seed"]) for line in lines] == [("budget_reached", 0), ("failed", 1), ("missing", None)]
    assert lines[0]["selected_test_loss"] == evaluation(10, 1 / 11)["incumbent_test_loss"]
    kept = staged(results)
    assert {name.partition("/")[0] for name in kept} == {"report", "records", "configuration", "code"}
    assert kept["report/report.pdf"] == b"%PDF"
    assert kept["report/figures/any-time.csv"] == b"a,b"
    assert YAML(typ="safe").load(kept["configuration/small.yaml"])["seeds"] == [0, 1, 2]
    sources = {f"code/{name}": (ROOT / name).read_bytes() for name in tracked_files(ROOT, "bench/records")}
    assert {name: content for name, content in kept.items() if name.startswith("code/")} == sources
    again = {run.id: run for run in read_runs(results / "tracked-report/artifacts/records")}
    assert {run.id: run.records for run in read_runs(results)} == {name: run.records for name, run in again.items()}
    assert not [name for name, content in kept.items() if b"/home/someone" in content]
    for project, verdict in {"other": "would be uploaded", "test": "left out: it was tracked for another"}.items():
        answer = CliRunner().invoke(app, ["sync", str(results), "--dry-run", "--project", project])
        assert f"report            {verdict}" in answer.stdout, answer.output


@pytest.mark.slow
def test_a_report_that_was_tracked_offline_is_uploaded_once(results, files, server):
    track(results, files)
    for outcome in results.glob("*/outcome.json"):
        outcome.unlink()  # so that nothing else goes up
    kept = staged(results)
    words = ["sync", str(results)]
    answer = CliRunner().invoke(app, words)
    assert "report            uploaded" in answer.stdout, answer.output
    sent = {f"{kind}/{name}": each for kind, found in server.artifacts.items() for name, each in found.items()}
    assert sent == kept
    requests = server.requests
    assert "report            already there" in CliRunner().invoke(app, words).stdout
    assert server.requests == requests


def test_online_it_is_one_run_however_often_it_is_tracked(results, files, online):
    address = track(results, files, entity="a-team")
    assert address.startswith(f"{online.address}/someone/test/runs/report-")
    assert track(results, files, entity="a-team") == address
    ((identity, told),) = online.told.items()
    assert (told["entity"], told["jobType"], address.rpartition("/")[2]) == ("a-team", "report", identity)
    assert staged(results) == {}
    assert online.artifacts["report"]["report.html"] == b"<html>"
    assert not [path for path in (results.parent / "home").rglob("*") if "artifacts" in path.parts]


@pytest.mark.parametrize("place", ["graphql", "artifact"])
def test_a_refusal_is_one_line_and_the_report_stands(place, results, files, online):
    if place == "graphql":
        online.refuse = {"graphql": 403}
    else:
        online.refused = "records"
    with pytest.raises(ReportError, match=r"^W&B: [^\n]*(not with me|no such artifacts)[^\n]*; the report is on disk"):
        track(results, files)
    assert files[0].read_bytes() == b"%PDF"


def test_the_mode_is_that_of_the_runs(private):
    private.delenv("WANDB_MODE")
    plan = Manifest("a", (), {}, ())
    modes = {mode: mode_of([plan, Manifest("b", (), {}, (), mode=mode)]) for mode in (None, "online", "disabled")}
    assert modes == {None: "offline", "online": "online", "disabled": "offline"}
    private.setenv("WANDB_MODE", "online")
    assert mode_of([plan]) == "online"
    assert mode_of([Manifest("b", (), {}, (), mode="offline")]) == "offline"


def test_a_place_without_track_is_a_mistake(results):
    answer = CliRunner().invoke(app, ["report", str(results), "--project", "x"])
    assert (answer.exit_code, len(answer.output.splitlines())) == (2, 1)
    assert "add --track" in answer.output
