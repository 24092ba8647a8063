"""What the command line calls: one figure, or the whole report."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.figure
import plotly.graph_objects

from bench.records import ReportError
from bench.records.spreadsheets import for_spreadsheets
from reports import loading
from reports.document import write_pdf
from reports.loading import BrokenFigureError, Figure
from reports.output import check_writable
from reports.page import Chart, write_page
from reports.section import Section
from reports.selection import NoData
from reports.style import figure_style, save
from reports.tables import Tables, read_tables

log = logging.getLogger("oho-bench")


def build_figure(name: str, results: Path, output: Path | None = None, *, column: bool = False) -> list[Path]:
    """Draws one figure as PDF, PNG and SVG, with its data as CSV; returns the files.  Raises `ReportError`.

    It is as wide as a page of text or, with `column`, as one of two columns.  Without an `output`, the files have the
    figure's name and lie in the present folder.
    """
    if output is not None:
        check_writable(output, ".pdf", ".png", ".svg")
    tables = read_tables(results)
    figure = loading.load(name, tables.manifests, results)
    if output is None:
        output = Path(f"{figure.file_name}.pdf")
        check_writable(output, ".pdf")
    with figure_style(column=column, methods=tables.methods, fonts=tables.names.fonts):
        try:
            return _made(figure, tables, output).files
        except NoData as reason:
            raise ReportError(f"{name}: {reason}") from None


def build_report(results: Path, output: Path) -> list[Path]:
    """Writes the PDF, the page beside it and, in a folder of the report's name, every figure; returns PDF and page first.

    A figure of a user's own that fails is reported in one line, in its section and as a warning.  Raises `ReportError`.
    """
    page = output.with_suffix(".html")
    check_writable(output, ".pdf")
    check_writable(page, ".html")
    tables = read_tables(results)
    with figure_style(methods=tables.methods, fonts=tables.names.fonts):
        made = [_section(name, tables, results, output.with_suffix("")) for name in loading.names_in(tables.manifests)]
    sections = [one.section for one in made]
    write_pdf(tables, sections, output)
    write_page(page, tables=tables, sections=sections, charts=[chart for one in made for chart in one.charts])
    return [output, page, *(path for one in made for path in one.files)]


@dataclass(frozen=True)
class _Made:
    """A figure's part of the report, its chart of the page, if it has any, and its files."""

    section: Section
    charts: list[Chart] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def _section(name: str, tables: Tables, results: Path, folder: Path) -> _Made:
    """A figure's part of the report, whether it can be drawn or not."""
    try:
        figure = loading.load(name, tables.manifests, results)
    except BrokenFigureError as error:
        log.warning("%s", error)
        return _Made(Section.broken(name, error))
    try:
        return _made(figure, tables, folder / f"{figure.file_name}.pdf")
    except NoData as reason:
        section = Section.empty(figure, str(reason))
        charts = [Chart(name, section, None)] if hasattr(figure.module, "interactive") else []
        return _Made(section, charts)
    except BrokenFigureError as error:
        log.warning("%s", error)
        return _Made(Section.broken(figure.entry.title, error))


def _made(figure: Figure, tables: Tables, path: Path) -> _Made:
    """Draws a figure and says what it shows."""
    with figure.guarded():
        estimates = figure.of("estimate", tables.of_figure(figure.name))
        drawn: Any = figure.of("draw", estimates)
        section = Section(
            figure.entry.title, figure.question, figure.method, figure.of("findings", estimates, otherwise=[]),
            figure.of("caption", estimates, otherwise=""), path.with_suffix(".svg"),
            figure.of("published_rows", estimates, otherwise=[]), figure.entry.headline,
        )  # fmt: skip
        chart = figure.of("interactive", estimates)
        if reason := _wrong(drawn, section, chart):
            raise BrokenFigureError(f"{figure.name}: {reason}")
        files = save(drawn, path)
        csv = path.with_suffix(".csv")
        for_spreadsheets(tables.names.restored(loading.data_of(estimates))).to_csv(csv, index=False)
    return _Made(section, [Chart(figure.name, section, chart)] if chart else [], [*files, csv])


def _wrong(drawn: Any, section: Section, chart: Any) -> str | None:
    """Returns which of a figure's functions returns something that the report cannot take, or None if all is well."""
    if not isinstance(drawn, matplotlib.figure.Figure):
        return f"draw returns a {type(drawn).__name__}; a matplotlib Figure is expected"
    if not _are_texts(section.findings):
        return "findings does not return a list of texts"
    if not isinstance(section.caption, str):
        return f"caption returns a {type(section.caption).__name__}; a text is expected"
    rows = section.published
    if not (isinstance(rows, list) and all(_are_texts(row) and len(row) == len(rows[0]) for row in rows)):
        return "published_rows does not return a list of equally long lists of texts"
    if chart is not None and not isinstance(chart, plotly.graph_objects.Figure):
        return f"interactive returns a {type(chart).__name__}; a Plotly Figure or None is expected"
    return None


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(text, str) for text in found)
