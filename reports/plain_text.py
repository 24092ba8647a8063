"""The report in plain text: what it says and its tables, a line each.

The pages of `results/` quote it, a search finds a number in it, and `diff` shows what a change of the code or of the runs
has changed.  What the PDF says of every report alike is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CLAIMS = ("Claim of the paper", "Verdict", "Evidence", "Figure")
COMPARED = ("Seeds", "Difference", "Better", "p", "p, Holm")
ENDS = ("Method", "Hyperparameter", "Median", "Range", "Space", "Outside")
TIME = ("Method", "Train", "Hypergradient", "Selection", "Search", "Set-up", "Evaluation", "Tracking", "Other", "Wall")


def plain_text(content: Mapping[str, Any]) -> str:
    """Returns the text of a report whose content is that of `reports.document.content_of`."""
    return "\n".join(_lines(content)).strip() + "\n"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    yield from (content["title"], content["date"], "", *content["abstract"])
    yield f"{content['measured']} of {content['planned']} planned runs were measured."
    for each in content["standings"]:
        yield from _table(f"{each['title']}. {each['notes']}", content["standing_header"], each["rows"])
    claims = [[each["claim"], each["outcome"], each["evidence"], each["figure"] or "—"] for each in content["claims"]]
    yield from _table(f"What becomes of the paper's claims. {content['not_asked']}".rstrip(), CLAIMS, claims)
    for section in content["sections"]:
        yield from ("", f"== {section['title']} ({section['name']})", *section["findings"], section["caption"])
        if section["published"]:
            header, *rows = section["published"]
            yield from _table("", header, rows)
    yield from _appendix(content)


def _appendix(content: Mapping[str, Any]) -> Iterator[str]:
    for group in content["comparisons"]:
        title = f"== Who is better: experiment {group['experiment']}. {group['power']}".rstrip()
        compared = (f"Beside {group['reference']}", *COMPARED)
        yield from _table(title, compared, group["rows"]) if group["rows"] else ("", title)
    for group in content["results"]:
        title = f"== Results by method: experiment {group['experiment']}, task {group['task']}. {group['losses']}"
        yield from _table(f"{title} {group['untrained']}".rstrip(), group["header"], group["rows"])
    for group in content["ends"]:
        yield from _table(f"== Where methods ended: experiment {group['experiment']}", ENDS, group["rows"])
    yield from _table("== Time: mean seconds of a run", TIME, content["ledger"])
    yield from _table("== Provenance", ("What", "Value"), content["provenance"])
    yield from ("", "== What was not run, and what went wrong", *content["absent"], *content["problems"])


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields a table, nothing where it has no rows."""
    if rows:
        yield from ("", *([title] if title else []), *(" | ".join(map(str, row)) for row in (header, *rows)))
