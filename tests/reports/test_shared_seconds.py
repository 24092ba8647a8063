"""Seconds of runs that were trained together are compared with nothing."""

import pytest
from made_up_runs import LOSSES, write_folder

import bench
from reports import document
from reports.figures import performance, sets
from reports.run_rows import COLUMNS, rows
from reports.selection import NoData
from reports.tables import read_tables


@pytest.fixture
def results(tmp_path):
    write_folder(tmp_path / "runs", LOSSES, figures=("distribution", "performance", "sets"), shared_by=8)
    return tmp_path / "runs"


@pytest.mark.parametrize("figure", [performance, sets])
def test_a_figure_of_time_is_not_drawn_and_says_why(figure, results):
    with pytest.raises(NoData, match=r"\d+ of its \d+ runs were trained together with others, and their seconds cannot be"):
        figure.estimate(read_tables(results))


def test_reports_leave_the_seconds_out(results):
    tables = read_tables(results)
    assert tables.runs["counted_seconds"].isna().all()
    assert tables.evaluations["counted_seconds"].isna().all()
    assert tables.runs["incumbent_test_loss"].notna().all()


def test_the_page_and_the_report_call_them_shared(results):
    runs = read_tables(results).runs
    assert {row[list(COLUMNS).index("status")] for row in rows(runs)} == {"budget reached (seconds shared)"}
    assert {row[6] for row in document._group_table("both", runs)["rows"]} == {"shared"}
    assert document._ledger(runs) == []


def test_the_table_says_by_how_many_runs(results):
    assert set(bench.results(results)["shared_by"]) == {8}
