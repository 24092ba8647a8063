"""Where methods ended, and whether that lies in the space that searches draw from."""

from dataclasses import replace

import pytest
from made_up_runs import evaluation, incumbent, moment, spec_of, write_folder, write_run

from bench.records import Manifest, read_manifests, write_manifest
from reports.document import compiled
from reports.figures import distribution, performance
from reports.final_values import final_values, in_words, law_of, outside_sentence
from reports.tables import read_tables

SPACE = {
    "name": "fair",
    "hyperparameters": {"lr": {"low": 1e-4, "high": 2.0}, "gamma": {"low": 0.1, "high": 0.4, "complement": True}},
    "optimizers": {"adam": {"lr": {"low": 1e-5, "high": 1e-2}}},
}


def trial(number, lr):
    return {"kind": "trial", **moment(100, 0.1, number), "hyper": {"lr": lr}, "steps": 100}


@pytest.fixture
def tables(tmp_path):
    """Global OHO ends above the law, with one of two sets; a search returns its second trial; a schedule ends at 0."""
    ids = []
    for seed in range(3):
        for name, over, rates, records in (
            ("oho-global", None, [0.5, 3.0], [incumbent(100, 0.1)]),
            ("random-search", "adam", [0.7], [trial(0, 5e-3), trial(1, 1e-3), incumbent(100, 0.2, trial=1)]),
            ("cosine", None, [0.0], [incumbent(100, 0.3)]),
        ):
            spec = {**spec_of(name, seed, over), "space": SPACE}
            ids.append(write_run(tmp_path, spec, [*records, {**evaluation(100, 0.1), "hyper": {"lr": rates}}]))
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    return read_tables(tmp_path)


def test_final_values_are_beside_the_laws_of_the_methods_optimizers(tables):
    rows = [in_words(row) for row in final_values(tables, tables.runs).to_dict("records")]
    assert rows == [
        ["Global OHO", "learning rate", "1.8", "0.5 to 3", "0.0001 to 2", "3 of 3 above"],
        ["Random search: Adam", "learning rate", "0.001", "0.001 to 0.001", "10⁻⁵ to 0.01", "within"],
    ]


def test_the_performance_figure_names_who_ends_outside(tables):
    text = " ".join(performance.findings(performance.estimate(tables)))
    ended = "Global OHO (a learning rate of 1.75, where the space has 0.0001 to 2)."
    assert f"outside of the space that searches draw from: {ended}" in text
    assert compiled(tables, [], format="pdf")[:4] == b"%PDF"


def test_runs_whose_space_says_no_laws_have_no_rows(tmp_path):
    write_folder(tmp_path, {("oho-global", None): [[0.1]], ("fixed", None): [[0.2]]})
    tables = read_tables(tmp_path)
    assert final_values(tables, tables.runs).empty
    assert outside_sentence(final_values(tables, tables.runs)) == ""


def test_a_law_of_one_minus_the_value_is_turned_round():
    assert law_of({"space": SPACE, "method": {"name": "fixed"}}, "gamma") == (0.6, 0.9)


def test_a_run_that_two_experiments_share_counts_once(tmp_path):
    """The same runs, planned under two names, have the medians, intervals and numbers of the plan of either."""
    write_folder(tmp_path, {("fixed", None): [[0.1], [0.2], [0.4]], ("oho-global", None): [[0.2], [0.3], [0.5]]})
    alone = distribution.estimate(read_tables(tmp_path))
    plan = read_manifests(tmp_path)[0]
    write_manifest(tmp_path, replace(plan, experiment="again"))
    both = distribution.estimate(read_tables(tmp_path))
    assert distribution.findings(both) == distribution.findings(alone)
    assert both.summary["n"].tolist() == alone.summary["n"].tolist() == [3, 3]
