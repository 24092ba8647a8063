"""`oho-bench list`: every name a user may write, and what it is."""

import pytest
from faults import command, the_line
from helpers import ROOT

from bench.command.listing import describe
from bench.experiment.registries import KINDS

CONFIGS = sorted(path for path in ROOT.glob("configs/*/*.yaml"))


def test_all_names_are_listed_under_what_they_are():
    text = command("list").stdout
    for title, names in {f"{kind}s": list(about.registry) for kind, about in KINDS.items()}.items():
        section = text.partition(f"{title}\n")[2]
        assert [line.split()[0] for line in section.splitlines()[: len(names)]] == names
    for path in CONFIGS:
        assert f"  {path.stem} " if path.parent.name == "spaces" else f"  {path.parent.name}/{path.stem} " in text


ABOUT = {
    "multistep": ["multistep (method): learning rate times gamma at each milestone", "  milestones   "],
    "digits-mlp": ["digits-mlp (task): ", "  hidden_layers "],
    "digits": ["digits (data set): ", "1,437 for training and validation", "digits-mlp", "yes"],
    "shakespeare": ["shakespeare (data set): ", "shakespeare-transformer"],
    "distribution": ["distribution (figure): ", "quick/distribution", "oho-bench figure distribution DIR"],
    "fair": ["fair (space): ", "  lr   ", "0.0001 to 2, logarithmic", "100 to 100000, logarithmic, whole numbers"],
    "quick/distribution": [
        "quick/distribution (configuration): Final test loss", "digits-mlp", "2000 plain steps", "distribution",
    ],
    "transplant": ["transplant (method): ", "  donor_offset ", "transplant (figure): "],
}


@pytest.mark.parametrize("name", ABOUT)
def test_a_name_of_any_kind_is_described(name):
    answer = command("list", name)
    assert answer.exit_code == 0
    assert all(words in answer.stdout for words in ABOUT[name]), answer.stdout


def test_every_shipped_file_is_described():
    for path in CONFIGS:
        name = path.stem if path.parent.name == "spaces" else f"{path.parent.name}/{path.stem}"
        assert describe(name).startswith(f"{name} ("), name


NEAR = {
    "fixd": "fixed", "digit": "digits", "publishd-random": "published-random", "quick/distributions": "quick/distribution",
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_an_unknown_name_is_one_line_with_the_nearest_of_all_kinds(name):
    line = the_line(command("list", name), 2)
    assert line.startswith(f"oho-bench: there is nothing called {name!r}; did you mean '{NEAR[name]}'")


OWN = """\
from bench.tasks.data_sets import DataSet
from reports.registry import FigureEntry

DATA = DataSet(description="my data", load=None, present=lambda root: False)
FIGURE = FigureEntry(description="my figure", title="Mine", module="mine")
"""


def test_what_is_said_of_a_users_own_data_and_figure_can_be_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    assert "fetch" not in command("list", "./mine.py:DATA").stdout
    assert "oho-bench figure mine.py:FIGURE DIR" in command("list", "./mine.py:FIGURE").stdout
