"""What the command line calls: one figure, or the whole report."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.records import ReportError
from reports.common import NoData
from reports.document import Section, write_pdf
from reports.page import Chart, write_page
from reports.registry import FIGURES
from reports.style import figure_style, save
from reports.tables import read_tables


def build_figure(name: str, results: Path, output: Path, *, column: bool = False) -> list[Path]:
    """Draws one figure as PDF, PNG and SVG, with its data as CSV; returns the files.  Raises `ReportError`.

    It is as wide as a page of text or, with `column`, as one of two columns.
    """
    if name not in FIGURES:
        raise ReportError(f"unknown figure {name!r}; allowed: {', '.join(FIGURES)}")
    check_writable(output, ".pdf", ".png", ".svg")
    try:
        _, files = _draw(name, _module(name).estimate(read_tables(results)), output, column=column)
    except NoData as reason:
        raise ReportError(f"{name}: {reason}") from None
    return files


def build_report(results: Path, output: Path) -> list[Path]:
    """Writes the PDF, the page beside it and, in a folder of the report's name, every figure; returns PDF and page first.

    Raises `ReportError`.
    """
    page = output.with_suffix(".html")
    check_writable(output, ".pdf")
    check_writable(page, ".html")
    tables = read_tables(results)
    sections: list[Section] = []
    charts: list[Chart] = []
    files = []
    for name in FIGURES:
        if not any(name in manifest.figures for manifest in tables.manifests):
            continue
        module = _module(name)
        interactive = getattr(module, "interactive", None)
        try:
            estimates = module.estimate(tables)
            section, written = _draw(name, estimates, output.with_suffix("") / f"{name}.pdf")
            chart = interactive(estimates) if interactive else None
        except NoData as reason:
            section, written, chart = Section.empty(FIGURES[name].title, module, str(reason)), [], None
        sections.append(section)
        charts += [Chart(name, section, chart)] if interactive and (chart or section.image is None) else []
        files += written
    write_pdf(tables, sections, output)
    write_page(page, results, tables=tables, sections=sections, charts=charts)
    return [output, page, *files]


def _draw(name: str, estimates: Any, path: Path, *, column: bool = False) -> tuple[Section, list[Path]]:
    """`estimates`: what the figure's module made of the tables."""
    module = _module(name)
    with figure_style(column=column):
        files = save(module.draw(estimates), path)
    csv = path.with_suffix(".csv")
    estimates.csv.to_csv(csv, index=False)
    section = Section(
        FIGURES[name].title, module.QUESTION, module.METHOD, module.findings(estimates), module.caption(estimates),
        path.with_suffix(".svg"), module.published_rows(estimates), FIGURES[name].headline,
    )  # fmt: skip
    return section, [*files, csv]


def _module(name: str) -> ModuleType:
    return import_module(FIGURES[name].module)


def check_writable(output: Path, *suffixes: str) -> None:
    """Raises `ReportError` where a file of that name cannot be written; makes its folder."""
    if output.suffix not in suffixes:
        raise ReportError(f"{output}: the name must end in {' or '.join(suffixes)}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
    except OSError as error:
        raise ReportError(f"{output}: cannot be written ({error.strerror}); choose another place with -o") from None
    if output.is_dir():
        raise ReportError(f"{output}: is a folder; give the name of a file with -o")
    if free < 10_000_000:
        raise ReportError(f"{output}: less than 10 MB are free there; choose another place with -o")
