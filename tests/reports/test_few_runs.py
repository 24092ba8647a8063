"""What figures say of methods that have one run or two: no medians of one, no ranges where there are none."""

import pytest
from made_up_runs import LOSSES, write_folder

from reports.figures import anytime, distribution, performance
from reports.tables import read_tables
from reports.words import spread


def said(root, count):
    write_folder(root, {method: seeds[:count] for method, seeds in LOSSES.items()})
    tables = read_tables(root)
    return [
        " ".join([module.caption(estimates), *module.findings(estimates)])
        for module in (performance, anytime) for estimates in (module.estimate(tables),)
    ]  # fmt: skip


def test_single_runs_have_neither_medians_nor_ranges(tmp_path):
    of_performance, of_anytime = said(tmp_path, 1)
    assert "at most 0.2, that of Global OHO at the end of its budget" in of_performance
    assert "Points are single runs; an open triangle at the edge: the run missed the target" in of_performance
    assert "2 of 3 other methods miss it. " in of_performance
    assert "selected by then, one seed each; in colour" in of_anytime
    texts = f"{of_performance} {of_anytime}"
    assert not [words for words in ("medians over", "ranges", "bars", "more than half") if words in texts]


def test_two_runs_have_ranges(tmp_path):
    of_performance, of_anytime = said(tmp_path, 2)
    assert "Points are medians over 2 seeds and lines ranges (too few runs for an interval); an open" in of_performance
    assert "they are ranges (too few runs for an interval), near five budgets" in of_anytime


@pytest.mark.parametrize(("count", "shown"), [(3, "of 0.15 (0.1, 0.2), less"), (6, "of 0.15 [0.1, 0.2], less")])
def test_ranges_stand_in_parentheses_and_intervals_in_brackets(count, shown, tmp_path):
    seeds = [0.1, 0.15, 0.2] * (count // 3)
    write_folder(tmp_path, {("oho-global", None): [[loss] for loss in seeds], ("fixed", None): [[0.4]] * count})
    assert shown in distribution.findings(distribution.estimate(read_tables(tmp_path)))[0]


@pytest.mark.parametrize(("fewest", "most", "words"), [
    (1, 1, ""), (2, 5, "ranges (too few problems for an interval)"), (6, 9, "95 % intervals"),
    (2, 6, "95 % intervals or, of fewer than 6 problems, ranges"),
])  # fmt: skip
def test_what_stands_around_medians_is_called_what_it_is(fewest, most, words):
    assert spread(fewest, most, "problem") == words
