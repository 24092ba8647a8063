"""Names of any length and alphabet, in what reports write."""

import itertools

import pandas as pd
import pytest
from made_up_runs import evaluation, incumbent, spec_of, write_run
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontManager
from matplotlib.text import Text

from bench.records import Manifest, write_manifest
from bench.records.frames import results
from reports import glyphs, style
from reports.api import build_figure
from reports.figures import anytime, distribution, profiles
from reports.glyphs import fonts_for
from reports.replay import at_budgets, describe
from reports.run_rows import rows
from reports.style import figure_style, legend_above
from reports.tables import read_tables
from reports.words import breakable

LONG, WIDE = "L" * 200, "方法" * 40
LABELS = ["_mine", LONG, WIDE, "=1+1", r"$\frac$ #x_* <b>", "Fixed"]


def write_labels(root, labels, figures=("distribution", "anytime", "profiles")):
    parts = [{"name": "fixed", "family": "training", "label": label, "lr": 0.1 * n} for n, label in enumerate(labels, 1)]
    ids = []
    for part in parts:
        for seed in (0, 1):
            spec = {**spec_of("fixed", seed), "method": part}
            losses = enumerate([2.3, 0.1 * part["lr"] + 0.2 + seed])
            records = [make(50 * n, loss) for n, loss in losses for make in (incumbent, evaluation)]
            ids.append(write_run(root, spec, records))
    write_manifest(root, Manifest("many", figures, {"methods": parts}, tuple(ids)))
    return parts, ids


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine that has no fonts but those that come with matplotlib."""
    own = [entry for entry in font_manager.fontManager.ttflist if "site-packages" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


def texts(figure):
    figure.draw_without_rendering()
    return {text.get_text() for text in figure.findobj(Text) if text.get_visible()}


def test_every_name_is_shown_in_every_figure_shortened_where_it_is_long(tmp_path, no_fonts, caplog):
    write_labels(tmp_path, LABELS)
    tables = read_tables(tmp_path)
    names = dict(zip(tables.runs["label"], tables.names.restored(tables.runs)["label"], strict=True))
    assert list(names.values()) == LABELS
    assert {"=1+1", r"$\frac$ #x_* <b>", "Fixed"} < names.keys()
    assert all(len(name) <= 45 for name in names)
    assert [name[:2] for name, _ in tables.names.listed()] == ["LL", "[6"]
    (line,) = caplog.messages
    assert "no installed font has 方 (U+65B9), 法 (U+6CD5); figures" in line
    with figure_style(methods=tables.methods, fonts=tables.names.fonts):
        for figure in (distribution, anytime, profiles):
            assert names.keys() <= texts(figure.draw(figure.estimate(tables)))


def test_the_data_beside_a_figure_and_the_page_have_whole_names(tmp_path, no_fonts):
    write_labels(tmp_path / "runs", LABELS)
    build_figure("profiles", tmp_path / "runs", tmp_path / "out.png")
    assert set(pd.read_csv(tmp_path / "out.csv")["label"]) == {"'=1+1", *LABELS} - {"=1+1"}
    tables = read_tables(tmp_path / "runs")
    assert {row[2] for row in rows(tables.names.restored(tables.runs))} == set(LABELS)
    assert LONG not in describe(at_budgets(tmp_path / "runs", 2.0))


def test_a_font_that_has_the_character_is_used_for_it(monkeypatch):
    """One that comes with matplotlib stands for an installed one."""
    path = font_manager.findfont("STIXGeneral")
    usual = glyphs._characters(font_manager.findfont(glyphs.BASE))
    sign = next(chr(code) for code in sorted(glyphs._characters(path) - usual) if chr(code).isprintable())
    monkeypatch.setattr(FontManager, "ttflist", [FontEntry(path, "STIXGeneral", "normal", "normal", 400)], raising=False)
    fonts = fonts_for([f"a{sign}"])
    assert (fonts.families, fonts.files[1:], fonts.missing) == (("STIXGeneral",), (path,), frozenset())
    with figure_style(fonts=fonts):
        assert style.plt.rcParams["font.family"] == [glyphs.BASE, "STIXGeneral"]
    assert fonts_for(["Fixed, é"]) == glyphs.NO_MORE


def test_forty_methods_stay_on_the_figure(tmp_path):
    """Each on a line of its own, beside lines apart enough, and in a legend whose rows make the figure higher."""
    write_labels(tmp_path, [f"method number {n}" for n in range(40)])
    tables = read_tables(tmp_path)
    with figure_style(methods=tables.methods):
        strips = distribution.draw(distribution.estimate(tables))
        assert len(strips.axes[0].get_yticks()) == 40
        assert strips.get_figheight() < 9.2
        lines = anytime.draw(anytime.estimate(tables))
        lines.draw_without_rendering()
        extents = sorted((Text.get_window_extent(name) for name in lines.axes[0].texts), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(extents))
        figure, axes = style.panels(1, 1, height=2.0)
        legend_above(figure, [axes.plot([])[0] for _ in range(40)], ["L" * 44] * 40, columns=40)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width
        assert axes.bbox.height >= 100


def test_a_run_is_called_what_the_plan_calls_it(tmp_path):
    """A changed label is no new run, and experiments that share one may have different labels of it."""
    parts, ids = write_labels(tmp_path, ["A", "B"])
    renamed = [{**parts[0], "label": "New name", "family": "mine"}, parts[1]]
    write_manifest(tmp_path, Manifest("other", (), {"methods": renamed}, tuple(ids)))
    found = results(tmp_path)
    assert found.loc[found["experiment"] == "many", "label"].tolist() == ["A", "A", "B", "B"]
    assert found.loc[found["experiment"] == "other", "method_label"].tolist() == ["New name"] * 2 + ["B"] * 2
    assert found.loc[found["experiment"] == "other", "family"].tolist() == ["mine"] * 2 + ["training"] * 2
    assert set(at_budgets(tmp_path, 2.0)["label"]) == {"A", "B", "New name"}


@pytest.mark.parametrize(("name", "parts"), [
    ("own_task.py:WINES", ["own_task.py:", "WINES"]),
    ("Random search: Fixed at 20:30", ["Random search: Fixed at 20:30"]),
])  # fmt: skip
def test_the_name_of_a_plugin_breaks_after_its_file_where_a_column_is_narrow(name, parts):
    assert breakable(name).split("\u200b") == parts
