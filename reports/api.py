"""What the command line calls: one figure, or the whole report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import plotly.graph_objects

from bench.records import ReportError
from bench.records.archive import results_folder
from bench.records.errors import BrokenFigureError
from bench.records.files import ELSEWHERE, check_output, write_output
from bench.records.names import file_name
from bench.records.spreadsheets import for_spreadsheets
from reports import loading
from reports.claims import CLAIMS, NOT_VALID, Verdict, not_tested
from reports.clocks import Unlike, unlike_clocks
from reports.document import TEXT, write_pdf
from reports.loading import Figure, UnknownFigureError
from reports.output import check_writable
from reports.page import Chart, chart_content, write_page
from reports.section import Section
from reports.selection import Incomparable, NoData, void
from reports.speeds import SAID, favoured
from reports.style import Figure as Drawing
from reports.style import add_to_stamp, beyond_log_axes, figure_style, rendered, watermark
from reports.tables import Tables, read_tables
from reports.words import plural

IMAGES = (".pdf", ".png", ".svg")
log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Report:
    """The files of a report, PDF, page and plain text first, and a line for each figure that failed."""

    files: list[Path]
    failed: list[str]


def build_figure(
    name: str, results: Path, output: Path | None = None, *, experiment: str | None = None, column: bool = False,
    allow_mixed: bool = False,
) -> list[Path]:  # fmt: skip
    """Draws one figure as PDF, PNG and SVG, with its data as CSV; returns the files.

    It shows the runs of all experiments that feed it, or of one `experiment`.  It is as wide as a page of text or, with
    `column`, as one of two columns.  Without an `output`, the files have the figure's name and lie in the present folder.
    With `allow_mixed`, seconds of unlike devices or engines are drawn, and the figure says so.

    Raises:
        BrokenFigureError: if the figure fails.
        ReportError: if it is unknown, if the runs have nothing to draw, or if a file cannot be written.
    """
    if output is not None:
        check_writable(output, *IMAGES)
    with results_folder(results) as folder:
        return _figure_files(name, folder, output, experiment=experiment, column=column, allow_mixed=allow_mixed)


def _figure_files(
    name: str, results: Path, output: Path | None, *, experiment: str | None, column: bool, allow_mixed: bool
) -> list[Path]:
    tables = read_tables(results)
    try:
        figure = loading.load(name, tables.manifests, results)
        experiments = tables.feeding(figure.name)
        if experiment is not None and experiment not in experiments:
            allowed = ", ".join(experiments) or "none"
            raise ReportError(f"--experiment {experiment}: does not feed the figure {name}; those that do: {allowed}")
        own = tables.of(experiments if experiment is None else [experiment])
        output = output or Path(f"{figure.file_name}.pdf")
        for suffix in (*IMAGES, ".csv"):
            check_output(output.with_suffix(suffix))
        with figure_style(column=column, methods=tables.methods, fonts=tables.names.fonts):
            return _written(_made(figure, own, allow_mixed=allow_mixed), output)
    except UnknownFigureError as error:
        raise ReportError(str(error)) from None
    except Incomparable as reason:
        can_choose = experiment is None and len(experiments) > 1
        choice = f" Choose one with --experiment: {', '.join(experiments)}." if can_choose else ""
        raise ReportError(f"{name}: {reason}{choice}") from None
    except NoData as nothing:
        raise ReportError(f"{name}: {nothing}") from None


def build_report(results: Path, output: Path, *, allow_mixed: bool = False) -> Report:
    """Writes the PDF, page and plain text beside it and, in a folder of the report's name, every figure.

    A figure that is not drawn has one line, in its section and as a warning, which says why.  With `allow_mixed`, seconds
    of unlike devices or engines are drawn, and the figure says so.  Raises `ReportError`.
    """
    check_writable(output, ".pdf")
    page, folder = output.with_suffix(".html"), output.with_suffix("")
    check_writable(page, ".html")
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder}: is a file, and the folder of the figures has this name; {ELSEWHERE}")
    with results_folder(results) as root:
        return _report_files(root, output, kept=results if root == results else None, allow_mixed=allow_mixed)


def _report_files(results: Path, output: Path, *, kept: Path | None, allow_mixed: bool) -> Report:
    """Writes the report's files; `kept` is where the page finds each run's files, None where an archive has them."""
    page, folder = output.with_suffix(".html"), output.with_suffix("")
    tables = read_tables(results)
    sections, charts, files, failed = [], [], [], []
    with figure_style(methods=tables.methods, fonts=tables.names.fonts):
        for name in loading.names_in(tables.manifests):
            for made in _parts(name, tables, results, allow_mixed=allow_mixed):
                if made.absence:
                    log.warning("%s", made.absence)
                sections.append(made.section)
                charts += made.charts
                failed += [made.section.caption] if made.is_broken else []
                files += _written(made, folder / f"{file_name(made.section.key)}.pdf")
    write_pdf(tables, sections, output)
    write_page(page, tables=tables, sections=sections, charts=charts, results=kept)
    return Report([output, page, output.with_suffix(TEXT), *files], failed)


@dataclass(frozen=True)
class _Made:
    """A figure's part of the report, its chart of the page, if it has any, and its files by suffix."""

    section: Section
    charts: list[Chart] = field(default_factory=list)
    files: Mapping[str, bytes] = field(default_factory=dict)
    absence: str = ""
    """Why there is no figure, for a warning; empty where there is one."""
    is_broken: bool = False

    def of_experiment(self, experiment: str, *, is_first: bool) -> _Made:
        """Returns it as the part of one experiment."""
        section = self.section.of_experiment(experiment, is_first=is_first)
        return replace(self, section=section, charts=[replace(chart, section=section) for chart in self.charts])


def _parts(name: str, tables: Tables, results: Path, *, allow_mixed: bool) -> list[_Made]:
    """Returns a figure's part of the report, or one for each of its experiments where these cannot be compared."""
    try:
        figure = loading.load(name, tables.manifests, results)
    except BrokenFigureError as error:
        return [_broken(name, name, error)]
    experiments = tables.feeding(figure.name)
    try:
        return [_part(figure, tables.of(experiments), allow_mixed=allow_mixed, is_whole=len(experiments) < 2)]
    except Incomparable:
        parts = [_part(figure, tables.of([name]), allow_mixed=allow_mixed) for name in experiments]
    if len({part.section.caption for part in parts}) == 1 and all(part.section.image is None for part in parts):
        return parts[:1]  # which says once why there is none
    return [
        part.of_experiment(experiment, is_first=not place)
        for place, (experiment, part) in enumerate(zip(experiments, parts, strict=True))
    ]


def _part(figure: Figure, own: Tables, *, allow_mixed: bool, is_whole: bool = True) -> _Made:
    """Returns a part of the report, also of a figure that cannot be drawn; raises `Incomparable` unless it `is_whole`."""
    try:
        return _made(figure, own, allow_mixed=allow_mixed)
    except NoData as nothing:
        if isinstance(nothing, Incomparable) and not is_whole:
            raise
        section, absence = Section.empty(figure, str(nothing)), f"{figure.name}: {nothing}"
        charts = [Chart(section, None)] if hasattr(figure.module, "interactive") else []
        return _Made(section, charts, absence=absence)
    except BrokenFigureError as error:
        return _broken(figure.name, figure.entry.title, error)


def _broken(name: str, title: str, error: BrokenFigureError) -> _Made:
    section = Section.broken(name, title, error)
    return _Made(section, [Chart(section, None)], absence=str(error), is_broken=True)


def _made(figure: Figure, own: Tables, *, allow_mixed: bool) -> _Made:
    """Draws a figure of the runs in `own` and says what it shows; writes nothing."""
    with figure.guarded():
        if (unlike := unlike_clocks(own.runs, in_seconds=figure.entry.in_seconds)) and not allow_mixed:
            raise NoData(
                f"Its runs {unlike.said}, whose seconds cannot be compared, so it is not drawn; --allow-mixed draws it all "
                "the same."
            )
        estimates = figure.of("estimate", own)
        drawn: Any = figure.of("draw", estimates)
        invalid = void(own.runs)
        section = Section(
            figure.name, figure.entry.title, figure.question, figure.method,
            invalid or figure.of("findings", estimates, otherwise=[]),
            figure.of("caption", estimates, otherwise=""), None, figure.of("published_rows", estimates, otherwise=[]),
            _verdicts(figure, estimates, invalid),
        )  # fmt: skip
        chart = figure.of("interactive", estimates)
        if reason := _wrong(drawn, section, chart):
            raise BrokenFigureError(f"{figure.name}: {reason}")
        hidden = beyond_log_axes(drawn)
        if invalid:
            watermark(drawn, "NOT VALID")
        if unlike:
            add_to_stamp(drawn, f"seconds of unlike {unlike.kind}: {unlike.members}")
        unequal = favoured(own.runs)
        if unequal:
            add_to_stamp(drawn, SAID)
        files = rendered(drawn)
        data = for_spreadsheets(own.names.restored(loading.data_of(estimates)))
        files["csv"] = data.to_csv(index=False).encode()
        caption = " ".join([f"{section.caption}{_not_shown(hidden)}{_on_seconds(unlike)}", *unequal])
        section = replace(section, image=files["svg"].decode(), caption=caption)
        charts = [Chart(section, chart_content(chart))] if chart else []
    return _Made(section, charts, files)


def _verdicts(figure: Figure, estimates: Any, invalid: list[str]) -> list[Verdict]:
    """Returns a figure's verdicts on the paper's claims; of runs that are not valid, that they test none."""
    claims = CLAIMS.get(figure.name, ())
    return [not_tested(NOT_VALID)] * len(claims) if invalid else figure.of("verdicts", estimates) if claims else []


def _not_shown(values: int) -> str:
    """Returns a caption's last sentence; none where a figure shows all its values."""
    if not values:
        return ""
    return f" Not shown, since the axis is logarithmic: {plural(values, 'value')} of zero or below."


def _on_seconds(unlike: Unlike | None) -> str:
    """Returns a caption's sentence on seconds that cannot be compared; none where all can."""
    return f" Its seconds are of unlike {unlike.kind}: {unlike.members}." if unlike else ""


def _written(made: _Made, path: Path) -> list[Path]:
    """Writes a figure's files beside each other and returns them."""
    written = []
    for suffix, content in made.files.items():
        written.append(path.with_suffix(f".{suffix}"))
        write_output(written[-1], content)
    return written


def _wrong(drawn: Any, section: Section, chart: Any) -> str | None:
    """Returns which of a figure's functions returns something that the report cannot take, or None if all is well."""
    if not isinstance(drawn, Drawing):
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
