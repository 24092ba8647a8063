"""Figures that cannot be drawn, and values that cannot be shown: one line each, and the rest is made."""

from dataclasses import replace

import pytest
from faults import command, the_line
from made_up_runs import LOSSES, write_folder

from bench.records import ReportError
from reports import api, loading
from reports.api import build_figure, build_report
from reports.style import beyond_log_axes, figure_style
from reports.tables import read_tables


@pytest.fixture
def results(tmp_path):
    write_folder(tmp_path / "runs", LOSSES, figures=("distribution", "performance", "anytime"))
    return tmp_path / "runs"


def changed(monkeypatch, **changes):
    """Tables as no folder that is read has them, so that a figure of ours fails."""

    def read(root):
        tables = read_tables(root)
        return replace(tables, **{name: change(getattr(tables, name)) for name, change in changes.items()})

    monkeypatch.setattr(api, "read_tables", read)


def test_a_figure_of_ours_that_fails_is_one_line_and_the_rest_is_made(results, tmp_path, monkeypatch, caplog):
    changed(monkeypatch, incumbents=lambda table: table.drop(columns=["test_loss", "validation_loss"]))
    answer = command("report", results, "-o", tmp_path / "x.pdf")
    assert answer.exit_code == 1, answer.stderr
    assert {path.stem for path in (tmp_path / "x").iterdir()} == {"distribution"}
    performance, line = [record.getMessage() for record in caplog.records]
    assert performance.startswith("performance: ")
    assert line.startswith("anytime: ")
    assert "anytime.py:" in line
    assert line.endswith(":1: KeyError: 'test_loss'")
    assert line in (tmp_path / "x.html").read_text().replace("&#x27;", "'")
    said = the_line(command("figure", "anytime", results, "-o", tmp_path / "y.pdf"), 1)
    assert said == f"oho-bench: {line}"
    assert not (tmp_path / "y.pdf").exists()


def test_what_the_runs_do_not_have_is_a_sentence_and_no_failure(tmp_path, caplog):
    write_folder(tmp_path / "runs", {("oho-global", None): [[0.2], [0.2]]}, figures=("distribution", "performance"))
    answer = command("report", tmp_path / "runs", "-o", tmp_path / "x.pdf")
    assert answer.exit_code == 0, answer.stderr
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("performance: This figure needs a measured Global OHO run")
    assert command("figure", "performance", tmp_path / "runs", "-o", tmp_path / "y.pdf").exit_code == 2


def test_values_that_an_axis_cannot_show_are_counted_below_it(tmp_path, monkeypatch, recwarn):
    def one_below(runs):
        runs = runs.copy()
        runs.loc[0, "incumbent_test_loss"] = -1.0
        return runs

    results, captions = tmp_path / "runs", []
    write_folder(results, LOSSES, figures=("distribution",))
    monkeypatch.setattr(api, "write_pdf", lambda tables, sections, output: captions.extend(s.caption for s in sections))
    tables = read_tables(results)
    figure = loading.load("distribution", tables.manifests, results)
    with figure_style(methods=tables.methods):
        drawn = figure.of("draw", figure.of("estimate", replace(tables, runs=one_below(tables.runs))))
        assert beyond_log_axes(drawn) == 1
        low, high = drawn.axes[0].get_xlim()
    assert 0.04 < low < 0.1 < 0.8 < high < 2
    changed(monkeypatch, runs=one_below)
    build_report(results, tmp_path / "x.pdf")
    assert captions[0].endswith("Not shown, since the axis is logarithmic: 1 value of zero or below.")
    assert [str(warning.message) for warning in recwarn.list] == []


def test_an_axis_that_could_show_nothing_is_not_drawn(results, tmp_path, monkeypatch, recwarn):
    changed(monkeypatch, runs=lambda runs: runs.assign(incumbent_test_loss=-runs["incumbent_test_loss"]))
    with pytest.raises(ReportError, match="All values of a logarithmic axis are zero or below, so it is not drawn"):
        build_figure("distribution", results, tmp_path / "x.pdf")
    assert [str(warning.message) for warning in recwarn.list] == []
