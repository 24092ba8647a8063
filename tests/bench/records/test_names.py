"""What a name may be, how it is shortened, and what a spreadsheet makes of it."""

import re

import pandas as pd
import pytest

from bench.records.names import checked_experiment, checked_label, checked_name, clipped, file_name, shown, width
from bench.records.spreadsheets import FORMULA, for_spreadsheets


@pytest.mark.parametrize(
    "label", ["", "  ", "a\nb", "a\tb", "a\0b", "a\u200fb", "a\u200db", "\u0301a", "\ud800", "L" * 201, 3, None]
)
def test_a_label_that_some_output_could_not_show_is_refused(label):
    with pytest.raises(ValueError, match="one line of 1 to 200 printable characters"):
        checked_label(label)


def test_labels_that_look_alike_are_the_same():
    assert checked_label("Caf\u0065\u0301  one ") == checked_label("Café one") == "Café one"
    assert checked_name(" a  b") == " a  b"


@pytest.mark.parametrize("name", ["../x", "a/b", "CON", "con", "lpt1", "", "a b", "é", "a" * 101, "a\n", 2024])
def test_an_experiment_is_never_a_path_or_a_device(name):
    with pytest.raises(ValueError, match="name"):
        checked_experiment(name)
    assert checked_experiment("conv-2") == "conv-2"


def test_only_long_names_lose_their_middle_and_no_two_are_alike():
    kinds = [f"method {'with a long description of everything ' * 2}of kind {kind}" for kind in "AB"]
    alike = ["L" * 99 + middle + "L" * 99 for middle in "ab"]
    names = ["Random search, hyperband: Fixed, momentum", "L" * 200, "中" * 60, *kinds, *alike]
    short = shown(names)
    assert short[names[0]] == names[0]
    assert len(set(short.values())) == len(names)
    assert all(width(text) <= 44 for text in short.values())
    assert [short[kind][-10:] for kind in kinds] == [" of kind A", " of kind B"]
    assert shown(alike[:1])[alike[0]] != shown(alike)[alike[0]]
    assert {name: shown([*alike, "Fixed"])[name] for name in alike} == shown(alike)


def test_a_shortened_name_never_takes_the_place_of_another():
    long = "a" * 100
    taken = shown([long])[long]
    assert shown([long, taken])[taken] == taken != shown([long, taken])[long]


def test_names_within_the_limits_of_others():
    first, second = (f"{'x' * 300}{end}{'x' * 300}" for end in "ab")
    assert clipped("Fixed", 64) == "Fixed"
    assert len(clipped(first, 64)) == 64
    assert clipped(first, 64) != clipped(second, 64)


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "CON", "con.x", "a\\b", "\n", "é" * 300, "a" * 300])
def test_a_file_lies_in_its_folder_and_has_a_name_that_file_systems_take(name):
    file = file_name(name)
    assert re.fullmatch(r"[^/\\\n.][^/\\\n]*", file)
    assert file.partition(".")[0].lower() != "con"
    assert len(file.encode()) <= 110
    assert file != file_name(f"{name}-")
    assert file_name("mine.py:FIGURE") == "mine.py-FIGURE"


def test_a_spreadsheet_takes_no_label_for_a_formula(tmp_path):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "'=1", "Fixed", "a=b", "'quoted'"]
    table = pd.DataFrame({"label": texts, "loss": [-1.0] * len(texts), "=head": range(len(texts))})
    for_spreadsheets(table).to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert read["label"].tolist() == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'＝1", "''=1", "Fixed", "a=b", "'quoted'"]
    assert [text[1:] if FORMULA.match(text) else text for text in read["label"]] == texts
    assert read["loss"].tolist() == [-1.0] * len(texts)
    assert "'=head" in read
    assert table["label"].tolist() == texts
