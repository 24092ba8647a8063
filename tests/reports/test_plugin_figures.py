"""A figure in a file of a user's own, from a folder outside of the repository, in reports and on its own."""

import re
from shutil import copytree

import pytest
from faults import command
from helpers import run_one, write_config

from bench.command.planning import write_plan
from bench.experiment.expansion import load_experiment
from bench.records import Manifest, ReportError, write_manifest
from reports.api import build_figure, build_report

MINE = '''\
"""Where the time goes."""

from reports.registry import FigureEntry
from reports.selection import measured
from reports.style import panels

FIGURE = FigureEntry("counted seconds", "Where the time goes", module=__name__)


def estimate(tables):
    return measured(tables.runs)[["label", "counted_seconds"]]


def draw(estimates):
    figure, axes = panels(1, 1, height=2)
    axes.bar(estimates["label"], estimates["counted_seconds"])
    return figure
'''
REST = '''

QUESTION = "Which method takes longest?"


def findings(estimates):
    return ["The only one takes longest."]


def interactive(estimates):
    import plotly.graph_objects as go

    return go.Figure(go.Bar(x=estimates["label"], y=estimates["counted_seconds"]))
'''
NAME = "mine.py:FIGURE"


@pytest.fixture(scope="session")  # plug-ins of one content have the place where the process met the first
def measured_spec(tmp_path_factory):
    """A results folder with one real run, and what it was planned by."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_config(folder, "fixed")
    experiment = load_experiment(folder / "small.yaml", overrides=["budget.steps=10"])
    run_one(experiment.specs[0], folder / "runs")
    return folder


def planned(folder, content):
    """Plans a figure of that content in the folder; what is read later is the copy in the results."""
    (folder / "mine.py").write_text(content)
    experiment = load_experiment(folder / "small.yaml", overrides=["budget.steps=10", f"figures=[./{NAME}]"])
    write_plan(experiment, folder / "runs")
    (folder / "mine.py").unlink()
    return folder / "runs"


def test_it_is_a_section_and_a_chart_as_any_other(measured_spec, tmp_path, every_format):
    results = planned(measured_spec, MINE + REST)
    files = build_report(results, tmp_path / "report.pdf").files
    assert [path.name for path in files[3:]] == [f"mine.py-FIGURE.{suffix}" for suffix in ("pdf", "png", "svg", "csv")]
    page = files[1].read_text(encoding="utf-8")
    assert re.search(r"<h2 id=.+>Where the time goes</h2>\n<p>Which method takes longest\?</p>", page)
    assert f'data-chart="{NAME}"' in page


def test_estimate_and_draw_are_enough(measured_spec, tmp_path, monkeypatch):
    results = planned(measured_spec, MINE)
    assert build_report(results, tmp_path / "report.pdf")
    monkeypatch.chdir(tmp_path)
    assert build_figure(NAME, results)[0].name == "mine.py-FIGURE.svg"
    assert (tmp_path / "mine.py-FIGURE.csv").read_text().startswith("label,counted_seconds\nFixed,")


def test_the_command_line_draws_it_by_its_name(measured_spec, tmp_path):
    results = planned(measured_spec, MINE)
    answer = command("figure", f"./{NAME}", results, "-o", tmp_path / "one.pdf")  # as in the configuration
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / "one.svg").exists()


BROKEN = {
    "raises": (MINE.replace("return measured(", "return 1 / 0 + measured("), r"mine\.py:11:1: ZeroDivisionError"),
    "lacks draw": (MINE.partition("def draw")[0], "has no function draw, which a figure needs"),
    "finds a number": (MINE + "\n\ndef findings(estimates):\n    return 3\n", "findings does not return a list"),
    "has no text below": (MINE + "\n\ndef caption(estimates):\n    return 1\n", "caption returns a int; a text"),
    "has uneven rows": (MINE + "\n\ndef published_rows(estimates):\n    return [['a'], []]\n", "equally long lists"),
    "has no chart": (MINE + "\n\ndef interactive(estimates):\n    return {}\n", "interactive returns a dict; a Plotly"),
    "cannot be saved": (MINE.replace("return figure", "figure.savefig = None; return figure"), "TypeError"),
    "has no title": (MINE.replace('"Where the time goes", module', "1, module"), "title is a int; a text is expected"),
    "has no module": (MINE.replace("module=__name__", 'module="nowhere.at_all"'), "No module named 'nowhere'"),
    "gives up": (MINE.replace("return measured(", "raise SystemExit(3) or measured("), r"mine\.py:11:1: SystemExit"),
    "draws something else": (MINE.replace("return figure", "return 1"), "draw returns a int; a matplotlib Figure"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_one_that_fails_is_one_line(broken, measured_spec, tmp_path):
    content, words = BROKEN[broken]
    with pytest.raises(ReportError, match=words) as error:
        build_figure(NAME, planned(measured_spec, content), tmp_path / "one.pdf")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("broken", ["raises", "lacks draw"])
def test_of_a_report_with_one_that_fails_the_rest_is_made(broken, measured_spec, tmp_path, caplog):
    content, words = BROKEN[broken]
    built = build_report(planned(measured_spec, content), tmp_path / "report.pdf")
    assert [path.name for path in built.files] == ["report.pdf", "report.html", "report.txt"]
    assert built.files[0].read_bytes().startswith(b"%PDF")
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.search(words, line)
    assert built.failed == [f"This figure could not be made. {line}"]


def test_a_file_that_is_gone_is_told(measured_spec, tmp_path):
    origin = {"file": "mine.py", "hash": "0" * 16, "place": "FIGURE"}
    (tmp_path / "experiments").mkdir()
    for folder in (measured_spec / "runs").glob("*/spec.json"):
        copytree(folder.parent, tmp_path / folder.parent.name)
        runs = (folder.parent.name,)
    write_manifest(tmp_path, Manifest("small", (NAME,), {"figures": {NAME: origin}}, runs))
    with pytest.raises(ReportError, match=r"mine\.py: cannot be read"):
        build_figure(NAME, tmp_path, tmp_path / "one.pdf")


def test_an_unknown_figure_in_a_plan_is_one_line(measured_spec, tmp_path, caplog):
    for folder in (measured_spec / "runs").glob("*/spec.json"):
        copytree(folder.parent, tmp_path / folder.parent.name)
        runs = (folder.parent.name,)
    write_manifest(tmp_path, Manifest("small", ("of-a-later-version",), {}, runs))
    assert build_report(tmp_path, tmp_path / "report.pdf")
    (record,) = caplog.records
    assert "unknown figure 'of-a-later-version'; allowed: " in record.getMessage()
