"""Standard output that is full, closed or a pipe whose reader has gone."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, write_config

from bench.cli import app

UNREAD = "import sys; from bench.process.standard_streams import open_closed; open_closed(); "
SAID = "oho-bench: standard output cannot be written (No space left on device)\n"


@pytest.fixture
def full(monkeypatch):
    """A standard output that takes nothing, as this process's own."""
    with Path("/dev/full").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        yield
        monkeypatch.undo()


def code_of(*words):
    with pytest.raises(SystemExit) as stop:
        app(list(map(str, words)), prog_name="oho-bench")
    return stop.value.code


@pytest.mark.parametrize("words", [["list"], ["--version"], ["--help"], ["run", "CONFIG", "--dry-run", "--in-process"]])
def test_a_full_output_is_one_line(words, full, tmp_path, capsys):
    config = str(write_config(tmp_path, "fixed"))
    assert code_of(*(word.replace("CONFIG", config) for word in words)) == 1
    assert capsys.readouterr().err == SAID


def test_runs_need_no_output(full, tmp_path, capsys):
    config = write_config(tmp_path, "fixed")
    assert code_of("run", config, "--in-process", "--out", tmp_path / "runs", "--set", "budget.steps=10") == 0
    assert "budget reached" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert code_of("list") == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_a_mistake_is_answered_by_its_code_where_nobody_reads(monkeypatch):
    with Path("/dev/full").open("w", buffering=1) as file:
        monkeypatch.setattr(sys, "stderr", file)
        assert code_of("status", "nowhere") == 2
        monkeypatch.undo()
        file.detach() if isinstance(file, io.TextIOWrapper) else None


def test_streams_that_are_closed_give_their_numbers_to_no_file(tmp_path):
    """The shell closes them; each number is then one of the null device."""
    program = f"{UNREAD}import os; print('lost'); open({str(tmp_path / 'x')!r}, 'w').write(str(os.path.samestat(os.stat(1), os.stat('/dev/null'))))"
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable, program], cwd=ROOT, timeout=60).returncode == 0
    assert (tmp_path / "x").read_text() == "True"
