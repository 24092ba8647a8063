"""Records on a disk that fails: no damage goes unnoticed, and what was written before it is kept."""

import json
from zlib import crc32

import pytest
from fuzzing import CASES, damaged, tried
from helpers import without_sums
from hypothesis import assume, given

from bench.records.files import replacing_shared
from bench.records.json_files import RecordError, intact, read_lines, sealed

RECORDS = [{"kind": "trial", "step": step, "loss": loss} for step, loss in enumerate([2.5, float("nan"), -1e-300, 3])]
READ = [{**record, "loss": loss} for record, loss in zip(RECORDS, [2.5, None, -1e-300, 3], strict=True)]


def lines_of(records):
    content, total = b"", 0
    for record in records:
        line, total = sealed(record, total)
        content += line
    return content


WRITTEN = lines_of(RECORDS)


def read(folder, content, *, is_ended=False):
    path = folder / "records.jsonl"
    path.write_bytes(content)
    return read_lines(path, lambda record: None, is_ended=is_ended)


def test_what_is_written_is_read_and_each_line_is_json(tmp_path):
    assert read(tmp_path, WRITTEN, is_ended=True) == (tuple(READ), False)
    assert [json.loads(line)["step"] for line in WRITTEN.splitlines()] == [0, 1, 2, 3]
    assert read(tmp_path, b"") == ((), False)
    assert read_lines(tmp_path / "none", lambda record: None, is_ended=True) == ((), False)


@CASES
def test_no_damage_goes_unnoticed(cases, tmp_path):
    @tried(cases)
    @given(damaged(WRITTEN))
    def check(content):
        assume(b'"crc": ' in content or b"\n" not in content)  # it would be the file of an older version
        found = read(tmp_path, content)
        assert list(found.records) == READ[: len(found.records)]
        assert found.torn == (content != lines_of(RECORDS[: len(found.records)]))
        if found.torn:
            with pytest.raises(RecordError, match=rf"records\.jsonl:{len(found.records) + 1}:\d+: "):
                read(tmp_path, content, is_ended=True)

    check()


LINES = WRITTEN.splitlines(keepends=True)
EDITED = {
    "a line dropped": (LINES[0] + LINES[2] + LINES[3], 1),
    "a line doubled": (LINES[0] + LINES[1] + LINES[1] + LINES[2] + LINES[3], 2),
    "two lines changed over": (LINES[1] + LINES[0] + LINES[2] + LINES[3], 0),
    "a number changed": (WRITTEN.replace(b"2.5", b"2.4"), 0),
    "a sum removed": (LINES[0] + without_sums(LINES[1].decode()).encode() + LINES[2] + LINES[3], 1),
    "the last sum removed": (WRITTEN[: -len(LINES[3])] + without_sums(LINES[3].decode()).encode(), 3),
    "zeros after a loss of power": (WRITTEN + bytes(4096), 4),
    "a part of a line": (WRITTEN[:-9], 3),
}


@pytest.mark.parametrize("edit", EDITED)
def test_the_first_wrong_line_ends_what_is_believed(edit, tmp_path):
    content, count = EDITED[edit]
    assert read(tmp_path, content) == (tuple(READ[:count]), True)
    assert intact(content) == len(b"".join(LINES[:count]))


def test_lines_of_an_older_version_are_believed_and_those_after_them_are_checked(tmp_path):
    older = without_sums(b"".join(LINES[:2]).decode()).encode()
    assert read(tmp_path, older, is_ended=True) == (tuple(READ[:2]), False)
    line, _ = sealed(RECORDS[2], crc32(older))
    assert read(tmp_path, older + line, is_ended=True) == (tuple(READ[:3]), False)
    assert read(tmp_path, older.replace(b"2.5", b"2.4") + line).records == ()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "shared"
    with replacing_shared(path) as one, replacing_shared(path) as other:
        one.write(b"1" * 10_000)
        other.write(b"2" * 20_000)
    assert path.read_bytes() == b"1" * 10_000  # the outer one ends last
    assert [each.name for each in tmp_path.iterdir() if "shared" in each.name] == ["shared"]
