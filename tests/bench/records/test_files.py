"""What lies in a results folder is opened through no link; what a user asks for is whole or not there."""

import errno
import os
import stat
from pathlib import Path
from shutil import copytree, move

import pytest
from faults import command, the_line
from helpers import experiment, run_one
from made_up_runs import LOSSES, write_folder

from bench.protocol.checkpoints import write_checkpoint
from bench.records import (
    Manifest,
    RecordError,
    ReportError,
    RunWriter,
    StorageError,
    read_manifests,
    read_run,
    run_id,
    write_manifest,
)  # fmt: skip
from bench.records.files import read, write_output
from bench.records.plugins import PluginError, stored
from bench.tracking import transcripts
from reports.api import build_report


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write_folder(folder, {("fixed", None): [[0.5, 0.4]]})
    return folder


def led_elsewhere(path):
    """Replaces the file or folder by a link to it."""
    elsewhere = path.parents[2] / f"elsewhere-{path.name}"
    move(path, elsewhere)
    path.symlink_to(elsewhere)


def made_a_pipe(path):
    """Whoever opened it as usual would wait for ever."""
    path.unlink()
    os.mkfifo(path)


ASKING = {
    "status": ["status", "OUT"], "report": ["report", "OUT", "-o", "x.pdf"], "replay": ["replay", "OUT", "--budget", "1"],
    "export": ["export", "OUT", "-o", "x.csv"], "audit": ["audit", "OUT/ID"],
}  # fmt: skip
PLACES = ["experiments", "experiments/both.json", "ID", "ID/spec.json", "ID/outcome.json", "ID/records.jsonl"]
LINKS = [
    (place, change)
    for place in PLACES for change in (led_elsewhere, made_a_pipe)
    if not (change is made_a_pipe and "." not in place)
]  # fmt: skip


@pytest.mark.parametrize(("place", "change"), LINKS)
def test_no_reader_follows_a_link_or_waits_for_a_pipe(place, change, sound, tmp_path, monkeypatch):
    out = copytree(sound, tmp_path / "a/runs")
    (identity,) = (path.parent.name for path in out.glob("*/spec.json"))
    change(out / place.replace("ID", identity))
    monkeypatch.chdir(tmp_path)
    words = "is a link, which is not followed" if change is led_elsewhere else "not a regular file"
    for asked in ASKING:
        if asked == "audit" and not place.startswith("ID"):
            continue  # it reads no plan
        answer = command(*(word.replace("OUT", str(out)).replace("ID", identity) for word in ASKING[asked]))
        if answer.exit_code == 0:  # it reads only outcomes, and the lengths of the records
            assert asked == "status"
            assert "damaged" in answer.stdout or place == "ID/spec.json"
        elif not (asked == "audit" and place == "ID"):  # that is what the user names
            assert words in the_line(answer, 2)


def test_the_results_folder_itself_may_be_a_link(sound, tmp_path):
    (tmp_path / "runs").symlink_to(sound)
    assert command("status", tmp_path / "runs").exit_code == 0


def test_the_files_of_a_run_are_written_through_no_link(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["budget.steps=10"]).specs[0]
    folder, precious = tmp_path / "runs" / run_id(spec), tmp_path / "precious"
    folder.mkdir(parents=True)
    precious.write_text("precious")
    for name in ("spec.json", ".spec.json.part", "checkpoint.pt", ".checkpoint.pt.part", ".outcome.json.part", "wandb"):
        (folder / name).symlink_to(precious)
    run_one(spec, tmp_path / "runs", checkpoint_seconds=0.0)
    assert {path.name for path in folder.iterdir()} == {"spec.json", "records.jsonl", "outcome.json"}
    assert not any(path.is_symlink() for path in folder.iterdir())
    (folder / "records.jsonl").unlink()
    (folder / "records.jsonl").symlink_to(precious)
    with pytest.raises(StorageError, match=r"records\.jsonl is a link, which is not followed"):
        RunWriter(tmp_path / "runs", spec)
    assert precious.read_text() == "precious"


def test_a_folder_that_is_a_link_takes_no_run(tmp_path):
    spec = experiment(tmp_path, "fixed").specs[0]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/outcome.json").write_text("precious")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / run_id(spec)).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        RunWriter(tmp_path / "runs", spec)
    line = the_line(command("run", tmp_path / "small.yaml", "--out", tmp_path / "runs"), 2)
    assert f"{run_id(spec)} is a link, which is not followed" in line
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["outcome.json"]


def test_a_copy_of_hard_links_is_left_alone(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["budget.steps=10"]).specs[0]
    run_one(spec, tmp_path / "runs")
    copytree(tmp_path / "runs", tmp_path / "backup", copy_function=os.link)
    kept = read_run(tmp_path / "backup" / run_id(spec))
    RunWriter(tmp_path / "runs", spec).close()
    assert read(tmp_path / "runs" / run_id(spec) / "records.jsonl") == b""
    assert read_run(tmp_path / "backup" / run_id(spec)) == kept


LEAVING = ["../../x", "/etc/x", "..", "a/b", "a\\b", "a\0b", "a\nb"]


@pytest.mark.parametrize("name", LEAVING)
def test_names_in_a_plan_do_not_leave_the_folder(name, tmp_path):
    origin = {"file": "mine.py", "hash": "0" * 16, "place": "FIGURE"}
    origins = [{**origin, "file": name}, {**origin, "hash": name}]
    for config, runs in ({"figures": {"mine": origins[0]}}, ()), ({"figures": {"mine": origins[1]}}, ()), ({}, (name,)):
        write_manifest(tmp_path, Manifest("both", ("mine",), config, runs))
        with pytest.raises(RecordError, match=r"both\.json:1:1: (config|runs): "):
            read_manifests(tmp_path)


def test_a_folder_of_plugins_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "plugins").symlink_to(tmp_path)
    with pytest.raises(PluginError, match="a link, which is not followed"):
        stored(tmp_path, {"file": "mine.py", "hash": "0" * 16, "place": "METHOD"})


# What a user asks to be written


def test_a_file_is_replaced_as_a_whole_and_keeps_what_it_may(tmp_path):
    place, link = tmp_path / "x.csv", tmp_path / "link.csv"
    place.write_text("older")
    place.chmod(0o600)
    link.symlink_to(place)
    write_output(link, b"newer")
    assert (place.read_text(), place.stat().st_mode & 0o777, link.is_symlink()) == ("newer", 0o600, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "x.csv"]


WRITING = {
    "report": (["report", "OUT", "-o"], ".pdf"), "figure": (["figure", "anytime", "OUT", "-o"], ".png"),
    "replay": (["replay", "OUT", "--budget", "1", "-o"], ".csv"), "export": (["export", "OUT", "-o"], ".csv"),
}  # fmt: skip
REFUSED = {
    "": "the name of a file is expected (given '')",
    "\udcff": "\\udcff.S: the name is not in UTF-8; choose another place with -o",
    "taken": "taken.S: cannot be written (it is a folder); choose another place with -o",
    "file/x": "file/x.S: cannot be written (file is not a folder); choose another place with -o",
    "file/x/y": "file/x/y.S: cannot be written (Not a directory); choose another place with -o",
    "a" * 5_000: f"the name of a file is expected (given '{'a' * 40}'..., a name of 5,004 characters",
    "a\0b": "the name of a file is expected (given 'a\\x00b.S', embedded null byte)",
    "/proc/x": "/proc/x.S: cannot be written (No such file or directory); choose another place with -o",
}  # fmt: skip


@pytest.mark.parametrize("asked", WRITING)
def test_a_name_that_cannot_be_written_is_one_line_and_leaves_nothing(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "runs", LOSSES)
    words, suffix = WRITING[asked]
    Path("file").write_text("precious")
    Path(f"taken{suffix}").mkdir()
    for name, said in REFUSED.items():
        output = f"{name}{suffix}" if name else ""
        line = the_line(command(*(word.replace("OUT", "runs") for word in words), output), 2)
        assert said.replace(".S", suffix) in line
        assert len(line) < 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs", f"taken{suffix}"]
    assert Path("file").read_text() == "precious"


@pytest.mark.parametrize(("asked", "taken"), [("figure", "x.svg"), ("figure", "x.csv"), ("report", "x.html")])
def test_a_file_beside_the_one_that_is_asked_for_is_looked_at_first(asked, taken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "runs", LOSSES)
    Path(taken).mkdir()
    words, suffix = WRITING[asked]
    line = the_line(command(*(word.replace("OUT", "runs") for word in words), f"x{suffix}"), 2)
    assert line == f"oho-bench: {taken}: cannot be written (it is a folder); choose another place with -o"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", taken]


def test_a_file_in_the_place_of_the_folder_of_figures(tmp_path):
    write_folder(tmp_path / "runs", LOSSES)
    (tmp_path / "x").write_text("precious")
    with pytest.raises(ReportError, match="is a file, and the folder of the figures has this name; choose another place"):
        build_report(tmp_path / "runs", tmp_path / "x.pdf")


@pytest.mark.parametrize("words", ["status", "report", "sync", "audit", "figure anytime", "data list --root"])
def test_the_name_of_a_folder_that_cannot_be_is_one_line(words):
    for name, said in {"": "(given '')", "a" * 5_000: "5,000 characters", "a\0b": "embedded null byte"}.items():
        line = the_line(command(*words.split(), name), 2)
        assert "the name of a folder is expected" in line
        assert said in line


def test_files_of_the_tracker_that_are_links_or_pipes_are_passed_over(tmp_path, monkeypatch):
    """W&B's programs would follow the one and wait for the other."""
    asked, place = [], tmp_path / "ID/wandb/offline-run-1"
    monkeypatch.setattr(transcripts, "read_back", asked.append)
    place.mkdir(parents=True)
    (place / "run-a.wandb").touch()
    (place / "run-b.wandb").symlink_to(place / "run-a.wandb")
    os.mkfifo(place / "run-c.wandb")
    (place.parent / "offline-run-2").symlink_to(place)
    assert transcripts.agreeing(tmp_path / "ID", [transcripts.Transcript("x")]) == []
    assert asked == [place / "run-a.wandb"]


@pytest.fixture
def waits(monkeypatch):
    """What happens to files, in turn: each wait for the disk by the file's number, and the names that come and go."""

    def removed(path):
        if Path(path).suffix != ".part":
            seen.append(f"-{Path(path).name}")
        unlink(path)

    seen, rename, unlink = [], os.replace, os.unlink
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append(f"+{Path(new).name}"), rename(old, new)))
    monkeypatch.setattr(os, "unlink", removed)
    return seen


def number_of(path):
    return path.stat().st_ino


def test_a_run_has_ended_when_the_disk_has_its_outcome_under_its_name_and_not_before(tmp_path, waits):
    spec = experiment(tmp_path, "fixed", overrides=["budget.steps=10"]).specs[0]
    run_one(spec, tmp_path / "runs", checkpoint_seconds=0.0)
    folder = tmp_path / "runs" / run_id(spec)
    files = [number_of(folder / name) for name in ("records.jsonl", "outcome.json")]
    folders = [number_of(folder), number_of(folder.parent)]
    assert waits[-6:] == [*files, "+outcome.json", *folders, "-checkpoint.pt"]


def test_a_plan_is_on_the_disk_under_its_name_and_a_checkpoint_without(tmp_path, waits):
    write_manifest(tmp_path, Manifest("both", (), {}, ()))
    plan = tmp_path / "experiments/both.json"
    assert waits == [number_of(plan), "+both.json", number_of(plan.parent)]
    waits.clear()
    write_checkpoint(tmp_path, {})
    assert waits == [number_of(tmp_path / "checkpoint.pt"), "+checkpoint.pt"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_only_a_system_that_flushes_no_folders_may_refuse_to(code, tmp_path, monkeypatch):
    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    plan = Manifest("both", (), {}, ())
    if code == errno.EINVAL:
        write_manifest(tmp_path, plan)
        assert [each.experiment for each in read_manifests(tmp_path)] == ["both"]
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_manifest(tmp_path, plan)
