"""A results folder as one file: what it holds, and what is refused."""

import io
import lzma
import re
import shutil
import tarfile

import pytest
from made_up_runs import LOSSES, evaluation, spec_of, write_folder, write_run

from bench import results
from bench.cli import app
from bench.command.status import describe
from bench.command.tracked_report import track_report
from bench.records import RecordError, ReportError, Status, archive, experiments_in, read_run
from bench.records.archive import results_folder, write_archive
from bench.records.frames import read_frames


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder of runs with all else that is kept beside them, and `records.tar.xz` in a folder of its own."""
    root = tmp_path_factory.mktemp("packed")
    ids = write_folder(root / "runs", LOSSES)
    write_run(root / "runs", spec_of("adam", 7), [evaluation(100, 0.5)])  # no plan names it
    for name in (f"{ids[0]}/checkpoint.pt", f"{ids[0]}/wandb/debug.log", "plugins/0123/mine.py", "plugins/0123/mine.pyc"):
        (root / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "runs" / name).write_text("x = 1\n")
    write_archive(root / "runs", root / "kept/records.tar.xz", limit=5)
    return root


def members_of(path):
    with tarfile.open(path) as members:
        return {member.name: members.extractfile(member).read() for member in members}


def test_it_holds_the_files_of_planned_runs_as_they_are(packed):
    runs = [run for manifest in experiments_in(packed / "runs") for run in manifest.runs]
    expected = {"experiments/both.json", "plugins/0123/mine.py"}
    expected |= {f"{run}/{part}" for run in runs for part in ("spec.json", "outcome.json", "records.jsonl")}
    held = members_of(packed / "kept/records.tar.xz")
    assert set(held) == expected
    assert all(content == (packed / "runs" / name).read_bytes() for name, content in held.items())


def test_the_same_folder_gives_the_same_bytes(packed, tmp_path):
    shutil.copytree(packed / "runs", tmp_path / "runs", copy_function=shutil.copyfile)
    write_archive(tmp_path / "runs", tmp_path / "again.tar.xz", limit=5)
    assert (tmp_path / "again.tar.xz").read_bytes() == (packed / "kept/records.tar.xz").read_bytes()


@pytest.mark.parametrize("place", ["kept", "kept/records.tar.xz"])
def test_it_is_read_as_the_folder_it_was_made_of(place, packed):
    assert results(packed / place).equals(results(packed / "runs"))
    assert describe(packed / "runs").startswith("both: 12 runs: 12 budget reached")
    with results_folder(packed / place) as folder:
        assert (folder / "plugins/0123/mine.py").exists()
        assert describe(folder) == describe(packed / "runs")
    assert not folder.exists()


def test_a_folder_with_runs_of_its_own_is_read_in_the_place_of_its_archive(packed, tmp_path):
    write_folder(tmp_path, {("fixed", None): [[0.5]]})
    shutil.copy(packed / "kept/records.tar.xz", tmp_path)
    assert len(results(tmp_path)) == 1


def test_one_that_is_too_large_is_refused_and_says_what_is_large(packed, tmp_path):
    said = r"large\.tar\.xz: 0\.00\d+ MB are more than --limit 0\.001; before compression 0\.0\d+ MB: both 0\.0\d+, plans"
    with pytest.raises(ReportError, match=said):
        write_archive(packed / "runs", tmp_path / "large.tar.xz", limit=0.001)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_is_not_packed(tmp_path):
    ids = write_folder(tmp_path / "runs", {("fixed", None): [[0.5, 0.4]]})
    path = tmp_path / "runs" / ids[0] / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b"0.4", b"0.3"))
    with pytest.raises(RecordError, match=rf"{path}:3:1: changed since it was written"):
        write_archive(tmp_path / "runs", tmp_path / "records.tar.xz", limit=5)
    with pytest.raises(ReportError, match=r"records\.zip: an archive's name ends in \.tar\.xz"):
        write_archive(tmp_path / "runs", tmp_path / "records.zip", limit=5)


def test_a_run_that_has_not_ended_is_packed_as_it_is(tmp_path):
    ids = write_folder(tmp_path / "runs", {("fixed", None): [[0.5, 0.4]]})
    (tmp_path / "runs" / ids[0] / "outcome.json").unlink()
    write_archive(tmp_path / "runs", tmp_path / "records.tar.xz", limit=5)
    with results_folder(tmp_path / "records.tar.xz") as folder:
        assert read_run(folder / ids[0]).outcome is None
        assert len(read_run(folder / ids[0]).records) == 4


def test_a_folder_that_was_only_claimed_is_no_run_yet(tmp_path):
    ids = write_folder(tmp_path / "runs", {("fixed", None): [[0.5, 0.4]], ("adam", None): [[0.5, 0.4]]})
    for file in (tmp_path / "runs" / ids[1]).iterdir():
        file.unlink()
    write_archive(tmp_path / "runs", tmp_path / "records.tar.xz", limit=5)
    with results_folder(tmp_path / "records.tar.xz") as folder:
        assert [(folder / run).exists() for run in ids] == [True, False]


def of_members(*members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as written:
        for name, about in members:
            member = tarfile.TarInfo(name)
            for key, value in about.items():
                setattr(member, key, value)
            written.addfile(member, io.BytesIO(b"{}" * 50))
    return lzma.compress(content.getvalue())


GOOD = ("0a/spec.json", {"size": 2})
HOSTILE = {
    "not xz": (b"experiment,run\n" * 9, "is damaged or not compressed with xz"),
    "cut": (of_members(GOOD)[:-30], "ends before its end"),
    "empty": (b"", "ends before its end"),
    "not tar": (lzma.compress(b"x" * 2000), "is not an archive of records"),
    "out of the folder": (of_members(("../spec.json", {"size": 2})), "holds '../spec.json'"),
    "out by a plug-in": (of_members(("plugins/../../x.py", {"size": 2})), "holds 'plugins/../../x.py'"),
    "from the root": (of_members(("/0a/spec.json", {"size": 2})), "holds '/0a/spec.json'"),
    "a link": (of_members(("0a/spec.json", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), "holds '0a/spec.json'"),
    "a pipe": (of_members(("0a/spec.json", {"type": tarfile.FIFOTYPE})), "holds '0a/spec.json'"),
    "another file": (of_members(GOOD, ("0a/checkpoint.pt", {"size": 2})), "holds '0a/checkpoint.pt'"),
    "one twice": (of_members(GOOD, GOOD), "'0a/spec.json' twice"),
    "a bomb": (lzma.compress(bytes(300_000)), "holds more than 0 MiB"),
    "a header that lies": (of_members(("0a/spec.json", {"size": 2, "pax_headers": {"size": "999999999"}})), "archive"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_is_damaged_or_hostile_is_one_line(what, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 200_000)
    content, said = HOSTILE[what]
    path = tmp_path / "kept/records.tar.xz"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RecordError, match=re.escape(str(path))) as error:
        results(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert [each.name for each in tmp_path.rglob("*")] == ["kept", "records.tar.xz"]


def test_an_archive_that_leads_elsewhere_is_followed_only_where_it_is_named(packed, tmp_path):
    (tmp_path / "records.tar.xz").symlink_to(packed / "kept/records.tar.xz")
    assert len(results(tmp_path / "records.tar.xz")) == 12
    with pytest.raises(RecordError, match=r"is a link, which is not followed"):
        results(tmp_path)


def test_a_file_that_is_wrong_within_is_named_by_the_archive(tmp_path):
    (tmp_path / "records.tar.xz").write_bytes(of_members(("experiments/a.json", {"size": 2})))
    with pytest.raises(RecordError, match=rf"^{tmp_path}/records\.tar\.xz/experiments/a\.json:1:1: experiment: a string"):
        read_frames(tmp_path)


def code_of(*words):
    with pytest.raises(SystemExit) as stop:
        app(list(map(str, words)), prog_name="oho-bench")
    return stop.value.code or 0


def test_the_command_line_packs_and_reads(tmp_path, capsys):
    failed = {"status": Status.FAILED, "message": "no"}
    write_folder(tmp_path / "runs", {("fixed", None): [[0.5]]}, **failed)
    assert code_of("pack", tmp_path / "runs", "-o", tmp_path / "kept/records.tar.xz") == 0
    assert re.fullmatch(r".*/kept/records\.tar\.xz: 0\.00\d+ MB\n", capsys.readouterr().out)
    assert code_of("status", tmp_path / "kept") == 0
    assert re.search(rf"^failed {tmp_path}/kept/[0-9a-f]+: no$", capsys.readouterr().out, re.MULTILINE)
    assert code_of("sync", tmp_path / "kept") == 2
    assert "holds an archive of runs, which this command does not read; use `tar -xf" in capsys.readouterr().err


def test_of_runs_that_are_not_valid_only_a_folder_says_how_to_repeat_them(tmp_path, capsys):
    write_folder(tmp_path / "runs", {("fixed", None): [[0.5]]}, invalid_because=["it slept"])
    code_of("pack", tmp_path / "runs", "-o", tmp_path / "kept/records.tar.xz")
    said = {}
    for place in ("runs", "kept"):
        capsys.readouterr()
        code_of("status", tmp_path / place)
        said[place] = capsys.readouterr().out
    assert all("not valid" in text and "it slept" in text for text in said.values())
    assert ["--again-invalid" in said[place] for place in ("runs", "kept")] == [True, False]


def test_a_report_that_is_tracked_needs_a_folder(packed):
    with pytest.raises(ReportError, match=r"--track: .*records\.tar\.xz is an archive; `tar -xf"):
        track_report(packed / "kept", [], entity=None, project=None)


def test_what_a_replay_reads_may_be_an_archive(packed):
    from reports.replay import at_budgets

    assert at_budgets(packed / "kept", 1.0).equals(at_budgets(packed / "runs", 1.0))
