"""The first page in words, for PDF and page: who is best at which budget, and what becomes of each claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.records.durations import unit_name
from reports.claims import CLAIMS, Outcome, not_tested
from reports.section import Section
from reports.standings import Place, Standing, standings
from reports.tables import Tables
from reports.untested import TIMES
from reports.words import listed, plural, with_ends

HEADER = ["Budget", "Task", "Best method", "Test loss", "Error", "Won", "OHO gets"]
LEGEND = (
    "Loss: the median over seeds, with its 95 % interval in brackets or, of fewer than six, its range in parentheses.",
    "Won: the seeds on which no other method is as low.",
)
"""What the columns mean, in the first table that stands there."""
MORE_TIME = "A step of OHO takes several times as long as one of the others."
UNITS = {"seconds": "s"}
REPLAYED = "‡"
"""The mark of budgets at which methods are read off runs of a larger one."""
UNTESTED = "§"
"""The mark of budgets at which a search is not tested."""


class Table(NamedTuple):
    """The standings under one kind of budget; each row is as long as HEADER."""

    title: str
    rows: list[list[str]]
    notes: str


class Decided(NamedTuple):
    """A claim of the paper with its verdict, and the name of the figure that it rests on; empty where that is not drawn."""

    claim: str
    rule: str
    outcome: str
    evidence: str
    figure: str
    is_asked: bool
    """Whether an experiment of this report asks it."""


def tables_of(tables: Tables) -> list[Table]:
    """Returns the table of timed budgets and, apart, that of equal numbers of steps; each only if it has rows."""
    rows = standings(tables)
    timed, stepped = ([row for row in rows if row.is_timed is is_timed] for is_timed in (True, False))
    in_seconds = ["Budgets in s are of counted seconds."] if any(row.unit == "seconds" for row in timed) else []
    return [
        *_table("Equal time", timed, [*LEGEND, *in_seconds]),
        *_table("Equal steps", stepped, [*([] if timed else LEGEND), MORE_TIME]),
    ]


def _table(title: str, rows: Sequence[Standing], legend: Sequence[str]) -> list[Table]:
    if not rows:
        return []
    notes = [*legend]
    if any(row.replayed for row in rows):
        notes.append(f"{REPLAYED}: read off runs of a larger budget, without schedules that span it.")
    if untested := sorted({label for row in rows for label in row.untested}):
        told = f"fewer trials than {TIMES} times the random ones that they start with"
        notes.append(f"{UNTESTED}: without the searches that made {told}: {listed(untested)}.")
    notes += [
        f"Not valid on {task}: the runs {unlike}, whose seconds cannot be compared."
        for task, unlike in dict.fromkeys((row.task, row.unlike) for row in rows if row.unlike)
    ]
    return [Table(title, [_row(row) for row in rows], " ".join(notes))]


def _row(row: Standing) -> list[str]:
    marks = "".join(f" {mark}" for mark, is_set in ((REPLAYED, row.replayed), (UNTESTED, row.untested)) if is_set)
    budget = f"{row.budget:g} {UNITS.get(row.unit, unit_name(row.unit))}{marks}"
    if row.is_void:
        return [budget, row.task, "not valid", *["—"] * 4]
    if row.best is None:
        return [budget, row.task, "none returns a trained model", *["—"] * 4]
    best = row.best
    shown = row.units.shown(best.error)
    error = f"{shown:.3g} %" if row.units.metric_unit == "fraction" else f"{shown:.3g} {row.units.metric_unit}"
    label = f"{best.label} (of {row.methods})"
    return [budget, row.task, label, _loss(best), error, f"{row.won} of {best.n}", _ours(row)]


def _ours(row: Standing) -> str:
    if not row.ours:
        return "no trained model"
    return "; ".join(
        f"{place.label}: the best" if place.rank == 1 else f"{place.label}: {_loss(place)}, place {place.rank}"
        for place in row.ours
    )


def _loss(place: Place) -> str:
    return with_ends(*place.loss, place.n)


def decided_claims(sections: Sequence[Section]) -> list[Decided]:
    """Returns every claim of the paper with its verdict: one that no figure decides is not tested."""
    of = {section.key: section for section in sections}
    in_parts = {section.name for section in sections if section.experiment}
    found = []
    for name, claims in CLAIMS.items():
        section = of.get(name)
        if section is None:
            why = "its experiments cannot be compared" if name in in_parts else "no experiment of this report asks it"
            verdicts = [not_tested(why)] * len(claims)
        else:
            verdicts = section.verdicts or [not_tested("its figure is not drawn")] * len(claims)
        figure = name if section is not None and section.image is not None else ""
        for claim, verdict in zip(claims, verdicts, strict=True):
            is_asked = section is not None or name in in_parts
            found.append(Decided(claim.text, claim.rule, str(verdict.outcome), verdict.evidence, figure, is_asked))
    return found


def not_asked(claims: Sequence[Decided]) -> str:
    """Returns the sentence on claims that no experiment asks, which have no row; empty where each is asked."""
    count = sum(not claim.is_asked for claim in claims)
    verb = "is" if count == 1 else "are"
    return f"{plural(count, 'claim')} that no experiment of this report asks {verb} left out." if count else ""


def counted(claims: Sequence[Decided]) -> str:
    """Returns the sentence on how many claims are reproduced, are not, are left open, and are not tested."""
    verbs = zip(("reproduce", "do not reproduce", "leave undecided", "do not test"), Outcome, strict=True)
    counts = [(verb, sum(claim.outcome == outcome for claim in claims)) for verb, outcome in verbs]
    parts = [f"{verb} {count}" for verb, count in counts if count]
    if all(claim.outcome == Outcome.NOT_TESTED for claim in claims):
        return f"These runs test none of the paper's {len(claims)} claims."
    return f"Of the paper's {len(claims)} claims, these runs {listed(parts)}."
