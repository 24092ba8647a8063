"""What the report begins with, who is best and what becomes of the paper's claims, and how its pages are filled."""

import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import typst
from made_up_runs import (
    LOSSES,
    evaluation,
    incumbent,
    shocked_runs,
    spec_of,
    write_curves,
    write_folder,
    write_oho,
    write_run,
)
from matplotlib.image import imread

from bench.records import Manifest, write_manifest
from reports import front
from reports.claims import CLAIMS, Measured, Outcome, Verdict, below, decided, not_tested, worst
from reports.document import compiled
from reports.figures import convergence, distribution, performance, reset, resiliency, sets, source, stability, tangents
from reports.registry import FIGURES
from reports.section import Section
from reports.standings import standings
from reports.tables import read_tables

SEEDS = range(6)
REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTED = Outcome


def test_the_best_method_at_each_budget(tmp_path):
    """At 0.2 s and 0.6 s nothing has been selected yet."""
    write_folder(tmp_path, LOSSES)
    *early, last = standings(read_tables(tmp_path))
    assert [row.budget for row in early] == [0.2, 0.6]
    assert all(row.best is None and row.replayed == row.methods == 4 for row in early)
    assert (last.budget, last.methods, last.replayed, last.won) == (2.0, 4, 0, 1)
    assert last.best == ("Global OHO", (0.15, 0.1, 0.2), 0.1, 3, 1) == last.ours[0]
    (table,) = front.tables_of(read_tables(tmp_path))
    row = ["2 s", "digits-mlp", "Global OHO (of 4)", "0.15 (0.1, 0.2)", "10 %", "1 of 3", "Global OHO: the best"]
    assert table.rows[-1] == row


def test_the_first_page_shows_both_of_the_methods_that_oho_stands_for(tmp_path):
    losses = {("oho-averaged", None): [[0.2]], ("oho-default", None): [[0.3]], ("fixed", None): [[0.1]]}
    write_folder(tmp_path, losses)
    (table,) = front.tables_of(read_tables(tmp_path))
    assert table.rows[-1][-1] == "Default OHO: 0.3, place 3; Oho-Averaged: 0.2, place 2"


def write_budgets(root, **changes):
    """OHO and Fixed of 2 s; a schedule that spans its budget of 2 s and of 1 s."""
    ids = []
    for seed in SEEDS:
        for name, budget, losses in (
            ("oho-global", 2.0, (0.5, 0.3)), ("fixed", 2.0, (0.6, 0.2)), ("cosine", 2.0, (0.9, 0.1)),
            ("cosine", 1.0, (0.4,)),
        ):  # fmt: skip
            spec = {**spec_of(name, seed), "budget": {"unit": "seconds", "amount": budget}}
            records = [make(100 * (i + 1), loss) for i, loss in enumerate(losses) for make in (incumbent, evaluation)]
            ids.append(write_run(root, spec, records, spans_budget=name == "cosine", **changes))
    write_manifest(root, Manifest("both", ("performance",), {}, tuple(ids)))
    return standings(read_tables(root))


def test_smaller_budgets_are_replayed_where_that_is_exact(tmp_path):
    """The schedule that spans 1 s was run for it; that of 2 s tells nothing of 1 s."""
    of = {row.budget: row for row in write_budgets(tmp_path)}
    assert (of[1.0].best.label, of[1.0].best.loss.value, of[1.0].replayed) == ("Cosine", 0.4, 2)
    assert (of[1.0].ours[0].loss.value, of[1.0].ours[0].rank) == (0.5, 2)
    assert (of[2.0].best.label, of[2.0].best.loss.value, of[2.0].ours[0].rank) == ("Cosine", 0.1, 3)


def test_of_runs_that_are_not_valid_nobody_is_best(tmp_path):
    rows = write_budgets(tmp_path, invalid_because=["it slept"])
    assert all(row.is_void and row.best is None for row in rows)
    assert front._row(rows[-1])[2] == "not valid"


def test_an_untrained_model_is_never_best_and_experiments_of_one_method_are_not_asked(tmp_path):
    ids = []
    for seed in SEEDS:
        ids.append(write_run(tmp_path, spec_of("fixed", seed), [incumbent(0, 0.1), evaluation(100, 0.1)]))
        ids.append(write_run(tmp_path, spec_of("oho-global", seed), [incumbent(100, 0.2), evaluation(100, 0.2)]))
    write_manifest(tmp_path, Manifest("both", ("distribution",), {}, tuple(ids)))
    assert standings(read_tables(tmp_path))[-1].best.label == "Global OHO"
    write_manifest(tmp_path, Manifest("both", ("reset",), {}, tuple(ids)))
    assert standings(read_tables(tmp_path)) == []


def measured(low, high, n=6):
    return Measured("x", n, (low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("ours", "others", "outcome"),
    [
        (measured(1, 2), [measured(3, 4), measured(2.5, np.inf)], REPRODUCED),
        (measured(1, 2), [measured(3, 4), measured(1.5, 4)], UNDECIDED),
        (measured(5, 6), [measured(3, 4), measured(7, 8)], NOT_REPRODUCED),
        (measured(np.inf, np.inf), [measured(np.inf, np.inf)], NOT_REPRODUCED),
        (measured(1, 2, n=5), [measured(3, 4)], NOT_TESTED),
        (measured(1, 2), [measured(3, 4, n=5)], NOT_TESTED),
        (measured(1, 2), [], NOT_TESTED),
        (None, [measured(3, 4)], NOT_TESTED),
    ],
)
def test_an_interval_is_below_others_or_not(ours, others, outcome):
    assert below(ours, others, missing="it was").outcome is outcome


def test_a_claim_that_must_hold_several_times_falls_with_one():
    holds, fails, unknown = decided(True, False, "a"), decided(False, True, "b"), not_tested("c")
    unclear = decided(False, False, "d")
    assert worst([holds, unknown, fails, unclear, fails]) == (NOT_REPRODUCED, "b (and 1 more)")
    assert worst([holds, unclear, unknown]) == unknown
    assert worst([holds, unclear]) == unclear
    assert worst([holds, holds]) == holds


def outcomes(module, tables):
    name = module.__name__.rpartition(".")[2]
    found = module.verdicts(module.estimate(tables))
    assert len(found) == len(CLAIMS[name])
    assert all(isinstance(verdict, Verdict) and "nan" not in verdict.evidence for verdict in found)
    return [verdict.outcome for verdict in found]


def spread_around(value):
    return [[value * (1 + 0.01 * seed)] for seed in SEEDS]


@pytest.mark.parametrize(
    ("own", "fixed", "expected"),
    [
        (spread_around(0.1), [[0.2 + 0.1 * seed] for seed in SEEDS], [REPRODUCED, REPRODUCED]),
        (spread_around(0.4), [[0.2 + 0.1 * seed] for seed in SEEDS], [UNDECIDED, REPRODUCED]),
        ([[0.1 * (1 + seed)] for seed in SEEDS], spread_around(0.9), [REPRODUCED, NOT_REPRODUCED]),
        (spread_around(0.1)[:5], spread_around(0.9)[:5], [NOT_TESTED, NOT_TESTED]),
    ],
)  # fmt: skip
def test_verdicts_of_distribution(own, fixed, expected, tmp_path):
    write_folder(tmp_path, {("oho-global", None): own, ("fixed", None): fixed})
    assert outcomes(distribution, read_tables(tmp_path)) == expected


def test_verdict_of_performance(tmp_path):
    slow = [[0.9, 0.8, 0.09]] * 6
    quick = [[0.09]] * 6
    write_folder(tmp_path / "slow", {("oho-global", None): [[0.1]] * 6, ("random-search", "fixed"): slow})
    write_folder(tmp_path / "quick", {("oho-global", None): [[0.5, 0.1]] * 6, ("random-search", "fixed"): quick})
    assert outcomes(performance, read_tables(tmp_path / "slow")) == [REPRODUCED]
    assert outcomes(performance, read_tables(tmp_path / "quick")) == [NOT_REPRODUCED]


def test_a_search_whose_model_had_too_few_trials_is_not_tested(tmp_path):
    """Three times five random ones make fifteen; the search that was cut before has no place, and leaves its claim open."""
    for trials in (14, 15):
        root = tmp_path / str(trials)
        ids = write_folder(root, {("oho-global", None): [[0.1]] * 6})
        search = {("bayesian-search", "fixed"): [[0.9, 0.8, 0.09]] * 6}
        ids += write_folder(root, search, trials=trials, random_starts=5)
        write_manifest(root, Manifest("both", ("performance",), {}, tuple(ids)))
    few, enough = (read_tables(tmp_path / str(trials)) for trials in (14, 15))
    assert outcomes(performance, few) == [NOT_TESTED]
    assert outcomes(performance, enough) == [REPRODUCED]
    assert (standings(few)[-1].methods, standings(enough)[-1].methods) == (1, 2)
    assert "without the searches" in front.tables_of(few)[0].notes
    assert "Bayesian optimization: Fixed" in front.tables_of(few)[0].notes
    estimates = performance.estimate(few)
    assert performance.published_rows(estimates)[-1][:3] == ["Bayesian optimization: Fixed", "not tested", "not tested"]
    texts = {text.get_text() for axes in performance.draw(estimates).axes for text in axes.texts}
    assert "not tested" in texts
    assert "Not tested, as they made" in " ".join(performance.findings(estimates))


def sweep(option, losses, rates=(0.1,), norms=(1.0, 1.0), **others):
    """Six seeds for each value of an option, with its loss; a loss may be one for each value, too."""
    return [
        ("oho-global", {option: value, **others}, seed, [(100, loss, rates, norms)])
        for value, loss in losses.items() for seed in SEEDS
    ]  # fmt: skip


def test_verdicts_of_settings(tmp_path):
    """Forgetting costs or does not; more sets are better; batches of validation are, and large ones are not."""
    assert outcomes(reset, write_oho(tmp_path / "a", "reset", sweep("reset_every", {1: 0.5, 0: 0.2}))) == [REPRODUCED]
    assert outcomes(reset, write_oho(tmp_path / "b", "reset", sweep("reset_every", {1: 0.1, 0: 0.2}))) == [NOT_REPRODUCED]
    several = sweep("influence", {"collapsed": 0.2}, rates=(0.1, 0.2))
    found = outcomes(sets, write_oho(tmp_path / "c", "sets", [*several, *sweep("influence", {"exact": 0.4})]))
    assert found == [REPRODUCED]
    batches = sweep("validation_batch_size", {20: 0.3, 100: 0.3}, source="validation")
    trained = sweep("source", {"training": 0.5}, validation_batch_size=20)
    found = outcomes(source, write_oho(tmp_path / "d", "source", [*batches, *trained]))
    assert found == [REPRODUCED, UNDECIDED]


def test_verdicts_of_the_influence(tmp_path):
    rates = {0.001: 1.0, 0.1: 1e6}
    runs = [run for rate, norm in rates.items() for run in sweep("meta_rate", {rate: 0.5}, norms=(norm, 1.0), lr=0.1)]
    still = sweep("meta_rate", {0.0: 0.5}, lr=0.1)
    assert outcomes(stability, write_oho(tmp_path / "a", "stability", [*runs, *still])) == [REPRODUCED]
    for last, expected in ((20.0, NOT_REPRODUCED), (1.0, REPRODUCED)):
        path = [(100, 0.5, [0.1], (1.0, 1.0)), (200, 0.5, [0.1], (last, 1.0))]
        runs = [("oho-global", {}, seed, path) for seed in SEEDS]
        assert outcomes(tangents, write_oho(tmp_path / str(last), "tangents", runs)) == [expected]


@pytest.mark.parametrize(("end", "expected"), [(0.15, REPRODUCED), (0.5, NOT_REPRODUCED), (0.0, NOT_REPRODUCED)])
def test_verdict_of_convergence(end, expected, tmp_path):
    starts = [
        ("oho-global", {"lr": start}, seed, [(0, 0.5, [start], ()), (100, 0.5, [last], ())])
        for start, last in ((0.001, 0.1), (0.1, end)) for seed in SEEDS
    ]
    runs = [*starts, ("oho-global", {"meta_rate": 0.1}, 0, [(100, 0.5, [0.1], ())])]
    assert outcomes(convergence, write_oho(tmp_path, "convergence", runs)) == [expected]


def test_verdict_of_resiliency(tmp_path):
    """Three seeds are too few; six are not."""
    runs = shocked_runs()
    assert outcomes(resiliency, write_curves(tmp_path / "three", "resiliency", runs)) == [NOT_TESTED]
    more = [(name, options, seed + 3, *rest) for name, options, seed, *rest in runs]
    assert outcomes(resiliency, write_curves(tmp_path / "six", "resiliency", [*runs, *more])) == [REPRODUCED]


def test_every_claim_has_a_verdict():
    """A figure that is not in the report, that is not drawn, and one that decides."""
    assert set(CLAIMS) <= set(FIGURES)
    drawn = Section("reset", "Reset", "", "", [], "", "<svg/>", verdicts=[decided(True, False, "never 0.2")])
    undrawn = Section("sets", "Sets", "", "", [], "No run.", None)
    claims = front.decided_claims([drawn, undrawn])
    told = {claim.claim: (claim.outcome, claim.figure) for claim in claims}
    assert told["Forgetting the influence costs."] == ("reproduced", "reset")
    assert told["More sets give a lower test loss."] == ("not tested", "")
    assert [claim.claim for claim in claims if claim.is_asked] == [
        "More sets give a lower test loss.", "Forgetting the influence costs.",
    ]  # fmt: skip
    assert front.not_asked(claims) == f"{len(claims) - 2} claims that no experiment of this report asks are left out."
    assert front.counted(claims) == (
        f"Of the paper's {len(claims)} claims, these runs reproduce 1 and do not test {len(claims) - 1}."
    )


def made_up_sections(count):
    """Sections of figures low and high, with sentences and numbers."""
    text = "Every sentence of this section is here to take the room that sentences take. " * 3
    found = []
    for number in range(count):
        height = (160, 240, 330, 520)[number % 4]
        image = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="{height}">'
            f'<rect width="480" height="{height}" fill="grey"/></svg>'
        )
        rows = [["Method", "Loss"], *([f"Method {row}", "0.5"] for row in range(5 * number))]
        found.append(Section(f"made-up-{number}", f"Figure {number}", text, text, [text], text, image, rows))
    return found


def largest_gap(page):
    """The largest share of a page's height, between its margins, that has no ink across its whole width."""
    pixels = imread(io.BytesIO(page))[..., :3].min(axis=(1, 2))
    inner = pixels[round(0.08 * len(pixels)) : round(0.92 * len(pixels))] < 0.9
    inked = np.flatnonzero(np.concatenate([[True], inner, [True]]))
    return np.diff(inked).max() / len(inner)


def test_no_page_is_half_empty(tmp_path):
    """But for the last one, which ends where the report does."""
    write_folder(tmp_path, LOSSES)
    tables = read_tables(tmp_path)
    several = pd.concat([tables.runs.assign(experiment=f"experiment {number}") for number in range(8)])
    pages = compiled(replace(tables, runs=several), made_up_sections(9), format="png", ppi=30)
    assert len(pages) > 8
    assert max(map(largest_gap, pages[:-1])) < 0.2


@pytest.mark.parametrize("rows", [[], [["Method", "Loss"], ["Fixed", "0.4"]]])
def test_the_appendix_of_numbers_is_left_out_where_it_would_be_empty(rows, tmp_path, monkeypatch):
    def headings(source, *, timestamp, **options):
        return json.loads(typst.query(source, "heading", field="body", **options))

    write_folder(tmp_path, LOSSES)
    section = Section("anytime", "What each method returns", "", "", [], "", None, rows)
    monkeypatch.setattr(typst, "compile", headings)
    titles = [heading.get("text") for heading in compiled(read_tables(tmp_path), [section])]
    assert "Results by method" in titles
    assert ("Numbers of the figures" in titles) == bool(rows)
