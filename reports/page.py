"""Tables, figures and records -> one HTML page that needs no network.  The same records give the same bytes."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.records.files import write_output
from bench.records.names import file_name
from reports.document import opening
from reports.front import HEADER
from reports.published import SOURCE
from reports.run_rows import DIGITS, columns, details, losses, rounded, rows
from reports.section import Section
from reports.tables import Tables
from reports.words import LAST_PAGE

SKELETON, SCRIPT, CHARTS = (Path(__file__).with_name(name) for name in ("page.html", "page.js", "charts.js"))
FILES = ("spec.json", "records.jsonl", "outcome.json")
"""What the results folder keeps of a run."""
CLAIM_HEADER = ("Claim of the paper", "Verdict", "Evidence", "Figure", "Reproduced if")
CLAIM_NOTE = (
    "Each is decided by the rule in its last column: a claim is not reproduced where intervals lie apart the other way, "
    "and undecided where they overlap. Intervals are of 95 %, over seeds; below six runs there is none, and no test."
)
UNQUOTED = " <>/=:;,!?()[]{}*+-_.~@$|'"
"""What an address of data may hold as it is, within quotation marks."""

HINT = (
    '<p class="note">A click on a name hides it, a double click shows it alone; drawing a rectangle magnifies it, a double '
    "click in the chart shows all.</p>"
)


@dataclass(frozen=True)
class Chart:
    """A figure's interactive form, as JSON; `content` is None where the section's caption says why there is none."""

    section: Section
    content: Mapping[str, Any] | None


def write_page(
    output: Path, *, tables: Tables, sections: list[Section], charts: list[Chart], results: Path | None
) -> None:  # fmt: skip
    """Writes the page, with links to what the folder of the results, if there is one, keeps of each run.

    Raises `ReportError` where the file cannot be written.
    """
    drawn = {chart.section.key: chart.content for chart in charts if chart.content is not None}
    runs, parts = with_places(details(tables))
    data = {
        "digits": DIGITS, "columns": columns(tables.runs), "rows": rows(tables.names.restored(tables.runs)),
        "runs": runs, "parts": parts, "charts": drawn, "files": FILES,
        "records": _address(results, output.parent) if results else None,
    }  # fmt: skip
    start = opening(tables, sections)
    pdf = output.with_suffix(".pdf").name
    page = Template(SKELETON.read_text(encoding="utf-8")).substitute(
        title=escape(start["title"]), date=escape(start["date"]), pdf=escape(pdf), pdf_address=escape(quote(pdf)),
        abstract=escape(" ".join(start["abstract"])), measured=start["measured"], planned=start["planned"],
        losses=escape(losses(tables.runs)),
        front="\n".join(front_elements(start)), contents="\n".join(_entry(section) for section in sections),
        figures="\n".join(_element(section, section.key in drawn) for section in sections), data=embedded(data),
        plotly=packed_plotly() if drawn else "",
        script="".join(path.read_text(encoding="utf-8") for path in (CHARTS, SCRIPT)),
    )  # fmt: skip
    write_output(output, page.encode())


def with_places(runs: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """Returns runs whose specs have, in place of each value, its place in a list of all that differ, and that list.

    The runs of an experiment share all of their specs but the seed and the method.
    """
    places: dict[str, int] = {}
    found = {
        name: {**run, "spec": {
            key: places.setdefault(json.dumps(value), len(places)) for key, value in run["spec"].items()
        }} for name, run in runs.items()
    }  # fmt: skip
    return found, list(map(json.loads, places))


def embedded(content: Any) -> str:
    """Returns JSON that may stand inside a script element: no text in it can end that."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def chart_content(figure: go.Figure) -> dict[str, Any]:
    """Returns a chart without a template: all charts take the page's."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return {"data": rounded(content["data"]), "layout": content["layout"]}


def compressed(text: str) -> str:
    """Returns a text as gzip in base64, a third of its size, which the page's script unpacks."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def packed_plotly() -> str:
    """Returns the library that draws charts, compressed; that takes a tenth of a report's time."""
    return compressed(get_plotlyjs())


def _address(folder: Path, page: Path) -> str:
    """Returns the address of a folder as the page has to write it."""
    return quote(Path(os.path.relpath(folder.resolve(), page.resolve())).as_posix())


def front_elements(start: Mapping[str, Any]) -> list[str]:
    """Returns the tables that the page begins with: who is best, and what becomes of the paper's claims."""
    titles = {table["title"]: _table(HEADER, table["rows"], f"{table['title']}: which method is best at which budget. "
                                     f"{table['notes']}") for table in start["standings"]}  # fmt: skip
    rows = [
        [each["claim"], each["outcome"], each["evidence"], _link(each["figure"]), each["rule"]] for each in start["claims"]
    ]
    caption = f"What becomes of the paper's claims. {CLAIM_NOTE} {start['not_asked']}".rstrip()
    return [*titles.values(), *([_table(CLAIM_HEADER, rows, caption)] if rows else [])]


def _table(header: Sequence[str], rows: Sequence[Sequence[str | Link]], caption: str) -> str:
    """Returns a table that scrolls by itself where the window is narrow."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    label = escape(caption.split(".")[0])
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption>\n<div class="scroll" role="region" aria-label="{label}" '
        f'tabindex="0"><table class="plain" aria-label="{label}">\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
        "</table></div></figure>"
    )


class Link(NamedTuple):
    """A cell of a table that leads to a figure's section."""

    figure: str


def _link(figure: str) -> Link | str:
    return Link(figure) if figure else "—"


def _html(cell: str | Link) -> str:
    return f'<a href="#{_place(cell.figure)}">{escape(cell.figure)}</a>' if isinstance(cell, Link) else escape(cell)


def _place(name: str) -> str:
    """Returns the id of a section's element."""
    return escape(f"section-{file_name(name)}")


def _entry(section: Section) -> str:
    return f'<li><a href="#{_place(section.key)}">{escape(section.title)}</a></li>'


def _element(section: Section, is_chart: bool) -> str:
    """Returns a section's element: its sentences and its figure, as a chart where there is one."""
    place, texts = _place(section.key), []
    for title, text in (("How measured", section.method), ("What we see", " ".join(section.findings))):
        texts += [f"<p><strong>{title}.</strong> {escape(text)}</p>"] if text else []
    table = ""
    if section.published:
        caption = f"Ours beside the published values ({SOURCE})." if section.is_published else "The numbers of this figure."
        table = _table(section.published[0], section.published[1:], caption)
        if not section.is_published:
            table = f"<details><summary>Numbers</summary>{table}</details>"
    body = [f'<h2 id="{place}-title">{escape(section.title)}</h2>', f"<p>{escape(section.question)}</p>",
            _figure(section, is_chart), *texts, table]  # fmt: skip
    return f'<section id="{place}" aria-labelledby="{place}-title">\n' + "\n".join(filter(None, body)) + "\n</section>"


def _figure(section: Section, is_chart: bool) -> str:
    if section.image is None:
        return f'<p class="absent">{escape(section.caption)}</p>'
    caption = f"<figcaption>{escape(section.caption.replace(LAST_PAGE, ''))}</figcaption>"
    if is_chart:
        name = escape(section.key)
        label = escape(f"Chart: {section.title}")
        return (
            f'<figure><div class="plot" id="chart-{escape(file_name(section.key))}" data-chart="{name}" role="group" '
            f'aria-label="{label}"></div>\n{caption}</figure>\n{HINT}'
        )
    drawing = quote(section.image[section.image.index("<svg") :], safe=UNQUOTED)
    image = f'<img alt="{escape(section.title)}" src="data:image/svg+xml,{drawing}">'
    label = escape(f"Figure: {section.title}")
    return f'<figure><div class="scroll" role="region" aria-label="{label}" tabindex="0">{image}</div>\n{caption}</figure>'
