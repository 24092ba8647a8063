"""Standard output that is full, closed or a pipe whose reader has gone."""

import contextlib
import os
import subprocess
import sys

import pytest
from helpers import ROOT, write_config

from bench.cli import app

SAID = "oho-bench: standard output cannot be written (No space left on device)\n"


@contextlib.contextmanager
def unwritable(redirect, descriptor):
    """Redirects a stream, line by line as on a terminal, to what takes nothing."""
    file = os.fdopen(descriptor, "w", buffering=1)
    with redirect(file):
        yield
    with contextlib.suppress(OSError):
        file.close()


def full():
    return os.open("/dev/full", os.O_WRONLY)


def code_of(*words):
    with pytest.raises(SystemExit) as stop:
        app(list(map(str, words)), prog_name="oho-bench")
    return stop.value.code or 0


@pytest.mark.parametrize("words", [["list"], ["--version"], ["--help"], ["run", "CONFIG", "--dry-run", "--in-process"]])
def test_a_full_output_is_one_line(words, tmp_path, capsys):
    config = str(write_config(tmp_path, "fixed"))
    with unwritable(contextlib.redirect_stdout, full()):
        assert code_of(*(word.replace("CONFIG", config) for word in words)) == 1
    assert capsys.readouterr().err == SAID


def test_runs_need_no_output(tmp_path, capsys):
    config = write_config(tmp_path, "fixed")
    with unwritable(contextlib.redirect_stdout, full()):
        words = ["--in-process", "--out", tmp_path / "runs", "--set", "budget.steps=10"]
        assert code_of("run", config, *words) == 0
    assert "budget reached" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with unwritable(contextlib.redirect_stdout, writing):
        assert code_of("list") == 1
    assert capsys.readouterr().err == ""


def test_a_mistake_is_answered_by_its_code_where_nobody_reads():
    with unwritable(contextlib.redirect_stderr, full()):
        assert code_of("status", "nowhere") == 2
        assert code_of("status") == 2


PROGRAM = """\
import os, sys
from bench.process.standard_streams import open_closed
open_closed()
print("lost")
print("lost", file=sys.stderr)
is_null = [os.path.samestat(os.stat(number), os.stat(os.devnull)) for number in range(3)]
print(is_null, file=open(sys.argv[1], "w"))
"""


def test_streams_that_are_closed_give_their_numbers_to_no_file(tmp_path):
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-S", "-c", PROGRAM, tmp_path / "x"]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0
    assert (tmp_path / "x").read_text() == "[True, True, True]\n"
