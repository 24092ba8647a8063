"""What the command line calls: one figure, or the whole report."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from reports.document import Section, write_pdf
from reports.errors import ReportError
from reports.figures.common import NoData
from reports.registry import FIGURES
from reports.style import figure_style, save
from reports.tables import Tables, read_tables


def build_figure(name: str, results: Path, output: Path) -> list[Path]:
    """Draws one figure as PDF, PNG and SVG, with its data as CSV; returns the files.  Raises `ReportError`."""
    if name not in FIGURES:
        raise ReportError(f"unknown figure {name!r}; allowed: {', '.join(FIGURES)}")
    check_writable(output, ".pdf", ".png", ".svg")
    try:
        _, files = _draw(name, read_tables(results), output)
    except NoData as reason:
        raise ReportError(f"{name}: {reason}") from None
    return files


def build_report(results: Path, output: Path) -> list[Path]:
    """Writes the PDF and, in `figures/` beside it, every figure; returns the PDF first.  Raises `ReportError`."""
    check_writable(output, ".pdf")
    tables = read_tables(results)
    sections, files = [], []
    for name in FIGURES:
        if not any(name in manifest.figures for manifest in tables.manifests):
            continue
        try:
            section, written = _draw(name, tables, output.parent / "figures" / f"{name}.pdf")
        except NoData as reason:
            section, written = Section.empty(FIGURES[name].title, _module(name), str(reason)), []
        sections.append(section)
        files += written
    write_pdf(tables, sections, output)
    return [output, *files]


def _draw(name: str, tables: Tables, path: Path) -> tuple[Section, list[Path]]:
    module = _module(name)
    estimates = module.estimate(tables)
    with figure_style():
        files = save(module.draw(estimates), path)
    csv = path.with_suffix(".csv")
    estimates.csv.to_csv(csv, index=False)
    section = Section(
        FIGURES[name].title, module.QUESTION, module.METHOD, module.findings(estimates), module.caption(estimates),
        path.with_suffix(".svg"), module.published_rows(estimates),
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
