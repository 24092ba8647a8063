"""From records to numbers exactly, to figures and PDF lightly."""

import json
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from made_up_runs import ENVIRONMENT, LOSSES, evaluation, incumbent, spec_of, write_folder, write_run

from bench.records import Manifest, RecordError, ReportError, Status, run_id, write_manifest
from reports import document, style
from reports.api import build_figure, build_report
from reports.figures import anytime, distribution, performance, profiles
from reports.selection import NoData, measured
from reports.statistics import at_most_from, interquartile_mean, median, median_of, medians_of
from reports.tables import read_tables
from reports.went_wrong import problems
from reports.words import setting, stamp

WORSE = ("step", "cosine", "exponential", "adam", "adamw", "momentum")


def test_median_and_interquartile_mean_are_exact():
    assert median(np.array([3.0, 1.0, 2.0])) == 2.0
    assert median(np.array([1.0, 2.0, np.inf, np.inf])) == np.inf
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])) == 3.5


@pytest.mark.parametrize("count", [6, 10, 25])
def test_an_interval_covers_the_median_at_least_as_often_as_it_says(count):
    """Of a skewed law, too; 2,000 draws know a share of 95 % to half a percent."""
    samples = np.random.default_rng(count).lognormal(size=(2_000, count))
    ends = [median_of(sample)[1:] for sample in samples]
    assert np.mean([low <= 1 <= high for low, high in ends]) > 0.94


def test_few_runs_have_a_range():
    assert median_of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert median_of(range(9)) == (4.0, 1.0, 7.0)  # P(Binomial(9, 1/2) < 2) is 2.0 %, < 3 is 9 %


def test_curves_are_what_their_points_are():
    curves = np.array([[0.0, 1.0, 5.0], [1.0, 1.0, 4.0], [2.0, 1.0, np.nan]])
    value, low, high = medians_of(curves)
    assert value.tolist() == [1.0, 1.0, 5.0]
    for point in range(3):
        assert median_of(curves[:, point]) == (value[point], low[point], high[point])


def test_a_diverged_run_counts_as_the_worst():
    estimate = median_of([0.1, 0.2, np.nan])
    assert estimate.value == 0.2
    assert estimate.high == np.inf
    assert np.isnan(median_of([0.3]).low)


def test_a_target_is_reached_for_good_or_not():
    assert at_most_from([3, 2, 1], 2) == 1
    assert at_most_from([3, 2, 4, 1], 2) == 3  # it touched the target and left it
    assert at_most_from([1, 4], 2) is None
    assert at_most_from([np.nan, 3], 2) is None
    assert at_most_from([], 2) is None


def test_distribution_estimates(tmp_path):
    write_folder(tmp_path, LOSSES)
    estimates = distribution.estimate(read_tables(tmp_path))
    summary = estimates.summary.set_index("label")
    assert summary.loc["Fixed", "median"] == 0.4
    assert summary.loc["Global OHO", ["n", "lowest", "highest"]].tolist() == [3, 0.10, 0.20]


def test_performance_estimates(tmp_path):
    write_folder(tmp_path, LOSSES)
    estimates = performance.estimate(read_tables(tmp_path))
    assert list(estimates.targets.values()) == [(0.15, "Global OHO")]
    summary = estimates.summary.set_index("method")
    assert summary.loc["random-search", ["trials", "seconds", "misses"]].tolist() == [3, 3.0, 1]
    assert np.isinf(summary.loc["bayesian-search", "trials"])
    assert summary.loc["bayesian-search", "misses"] == 2
    assert summary.loc["oho-global", "seconds"] == 2.0


def test_shocked_runs_are_no_further_methods(tmp_path):
    ids = write_folder(tmp_path, LOSSES)
    for name in ("oho-global", "fixed"):
        shocked = {**spec_of(name, 0), "shock": {"label": "Noise", "events": [{"epoch": 1, "label_noise": 0.5}]}}
        ids.append(write_run(tmp_path, shocked, [incumbent(100, 0.01), evaluation(100, 0.01)]))
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    tables = read_tables(tmp_path)
    estimates = performance.estimate(tables)
    assert estimates.targets["own"].loss == 0.15
    assert "itself is at 0.15 for good after 2 counted seconds" in " ".join(performance.findings(estimates))
    plain = {"Fixed", "Global OHO", "Random search: Fixed", "Bayesian optimization: Adam"}
    found = estimates.summary, distribution.estimate(tables).summary, anytime.estimate(tables).curves
    assert [set(table["label"]) for table in found] == [plain] * 3
    assert set(profiles.estimate(tables).curves["label"]) == plain
    shocks_alone = replace(tables, runs=tables.runs[tables.runs["shock"] != ""])
    with pytest.raises(NoData, match="have a shock"):
        distribution.estimate(shocks_alone)


def test_textbook_training_sets_a_target_of_its_own(tmp_path):
    """The better of two trainings with nothing drawn; a test loss has no part in it."""
    ids = write_folder(tmp_path, LOSSES)
    for rate, losses in ((0.1, (0.30, 0.12)), (0.2, (0.5, 0.4))):
        spec = spec_of("cosine", 0)
        spec["method"] |= {"label": f"Cosine {rate}", "lr": rate, "weight_decay": 0.0}
        records = [make(100 * (i + 1), loss) for i, loss in enumerate(losses) for make in (incumbent, evaluation)]
        ids.append(write_run(tmp_path, spec, [{**record, "test_loss": 9.0} for record in records]))
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    estimates = performance.estimate(read_tables(tmp_path))
    assert estimates.targets["textbook"] == (0.12, "Cosine 0.1")
    rows = estimates.of("textbook").set_index("label")
    assert rows.loc["Global OHO", ["seconds", "misses"]].tolist() == [np.inf, 2]
    assert rows.loc["Cosine 0.1", "seconds"] == 2.0
    assert "No method is sooner as good as Cosine 0.1" in " ".join(performance.findings(estimates))
    assert "Seconds to textbook" in performance.published_rows(estimates)[0]


def test_without_global_oho_the_target_is_that_of_textbook_training(tmp_path):
    ids = []
    for seed in (0, 1, 2):
        for name, label, given in (("cosine", "Textbook", {"lr": 0.1, "weight_decay": 0.0}), ("oho-default", "OHO", {})):
            spec = spec_of(name, seed)
            spec["method"] |= {"label": label, **given}
            step = 50 if given else 100
            ids.append(write_run(tmp_path, spec, [incumbent(step, 0.2), evaluation(100, 0.2)]))
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    estimates = performance.estimate(read_tables(tmp_path))
    assert estimates.targets == {"textbook": (0.2, "Textbook")}
    (axes,) = performance.draw(estimates).axes
    assert axes.get_title(loc="left") == "As good as Textbook"
    assert axes.get_xlabel() == "Counted seconds to a\nvalidation loss of 0.2"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Textbook", "OHO"]
    assert "the median of Textbook, textbook training, at the end" in performance.caption(estimates)
    assert performance.findings(estimates)[0].startswith("No method is sooner as good as Textbook")
    assert performance.published_rows(estimates)[1:] == [["Textbook", "1", "0.5"], ["OHO", "1", "1"]]
    assert [verdict.outcome for verdict in performance.verdicts(estimates)] == ["not tested"]


def test_a_run_that_never_selected_a_model_is_one_that_misses(tmp_path):
    """Its validation loss was never finite."""
    ids = write_folder(tmp_path, LOSSES)
    without = {"final": {}, "status": Status.DIVERGED}
    lost = write_run(tmp_path, spec_of("fixed", 9), [evaluation(100, None)], **without)
    write_manifest(tmp_path, Manifest("both", ("performance", "anytime"), {}, (*ids, lost)))
    summary = performance.estimate(read_tables(tmp_path)).summary.set_index("method")
    assert summary.loc["fixed", ["n", "misses"]].tolist() == [4, 4]
    build_report(tmp_path, tmp_path / "report.pdf")


def test_a_label_is_drawn_as_it_is_written(tmp_path):
    """And not as a formula, which this would be a wrong one of."""
    label = r"$\frac$ #x_*"
    runs = [{**spec_of(name, 0), "method": {"name": name, "label": f"{name} {label}"}} for name in ("fixed", "oho-global")]
    ids = [write_run(tmp_path, spec, [incumbent(100, 0.5), evaluation(100, 0.5)]) for spec in runs]
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    build_report(tmp_path, tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_trials_of_a_population_are_its_members(tmp_path):
    """Six intervals of two members; the run that misses the target misses it all the same."""
    ids = write_folder(tmp_path, {("oho-global", None): [[0.2]]})
    for seed, last in ((0, 0.1), (1, 0.9)):
        spec = spec_of("population", seed, "fixed")
        spec["method"]["members"] = 2
        records = [incumbent(100, 0.5, trial=0), incumbent(200, last, trial=5), evaluation(200, last, trial=5)]
        ids.append(write_run(tmp_path, spec, records))
    write_manifest(tmp_path, Manifest("both", ("performance",), {}, tuple(ids)))
    runs = performance.estimate(read_tables(tmp_path)).runs
    assert runs.loc[runs["method"] == "population", "trials"].tolist() == [2, np.inf]


def test_runs_whose_task_has_other_options_are_not_compared(tmp_path):
    ids = []
    for seed, options in enumerate(({"width": 32}, {"width": 128}, {"width": 32, "drift": {"rotate": 90.0}})):
        spec = spec_of("fixed", seed)
        spec["task"] |= options
        ids.append(write_run(tmp_path, spec, [incumbent(100, 0.5), evaluation(100, 0.5)]))
    write_manifest(tmp_path, Manifest("both", ("distribution",), {}, tuple(ids)))
    with pytest.raises(NoData, match=r"differ in task \(digits-mlp with different drift and width\)"):
        distribution.estimate(read_tables(tmp_path))


def test_anytime_estimates(tmp_path):
    write_folder(tmp_path, LOSSES)  # models are found after 1 and 2 counted seconds
    estimates = anytime.estimate(read_tables(tmp_path))
    fixed = estimates.curves[estimates.curves["label"] == "Fixed"]
    assert set(fixed.loc[fixed["used"] < 1, "median"]) == {np.inf}
    assert set(fixed.loc[fixed["used"].between(1, 1.99), "median"]) == {0.8}
    assert fixed["median"].iloc[-1] == 0.4
    text = " ".join(anytime.findings(estimates))
    assert "At 2 counted seconds Global OHO is lowest with 0.15" in text
    assert "OHO is ahead of the best of 3 other methods at budgets of 1" in text


def test_anytime_has_colours_for_oho_and_the_winners_alone(tmp_path):
    """Of eight methods the best at the end and OHO; the axis ends a decade above the lowest loss."""
    others = {("fixed", None): [[0.9, 0.1]]} | {(name, None): [[2.0, 1.5]] for name in WORSE}
    write_folder(tmp_path, {("oho-global", None): [[0.8, 0.2]], **others})
    axes = anytime.draw(anytime.estimate(read_tables(tmp_path))).axes[0]
    bold = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {"Fixed", "Global OHO"}
    assert axes.get_ylim()[1] == pytest.approx(1.0)


def test_anytime_ranks_no_method_with_one_seed_of_three(tmp_path):
    """Its line is drawn, in grey, and neither a colour nor a sentence says that it leads."""
    losses = {("oho-global", None): [[0.2]] * 3, ("fixed", None): [[0.3]] * 3, ("adam", None): [[0.1]]}
    write_folder(tmp_path, losses)
    estimates = anytime.estimate(read_tables(tmp_path))
    axes = anytime.draw(estimates).axes[0]
    bold = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {"Global OHO"}
    assert "Adam" in {text.get_text() for text in axes.texts}
    assert "At 2 counted seconds Global OHO is lowest with 0.2, before Fixed" in " ".join(anytime.findings(estimates))


def test_a_schedule_that_spans_the_budget_is_a_point(tmp_path):
    write_folder(tmp_path, LOSSES, spans_budget=True)
    estimates = anytime.estimate(read_tables(tmp_path))
    assert estimates.curves.groupby("label").size().tolist() == [1] * 4
    anytime.draw(estimates)


def test_a_disturbed_run_is_shown_and_told(tmp_path):
    write_folder(tmp_path / "runs", LOSSES)
    ids = write_folder(tmp_path / "runs", {("fixed", None): LOSSES["fixed", None]}, invalid_because=["it slept"])
    tables = read_tables(tmp_path / "runs")
    assert "In 3 of 3 runs the clock was disturbed" in setting(measured(tables.runs))
    found = problems(tables.runs)
    assert all(identity in line for identity, line in zip(ids, found, strict=True))
    assert all("not valid: it slept" in line for line in found)
    assert stamp(measured(tables.runs)).endswith("; in 3 of 3 runs the clock was disturbed")


def test_of_an_experiment_with_many_disturbed_runs_no_ranking_is_written(tmp_path):
    results = tmp_path / "runs"
    ids = write_folder(results, LOSSES, figures=("distribution", "performance"), invalid_because=["it slept"])
    report = build_report(results, tmp_path / "report.pdf")
    content = document.opening(read_tables(results), [])
    sentence = f"Experiment both is not valid: in {len(ids)} of {len(ids)} runs the clock was disturbed"
    assert content["abstract"][0].startswith(sentence)
    assert document.content_of(read_tables(results), [])["comparisons"] == []
    page = report.files[1].read_text()
    assert sentence in page
    assert "the best of the others" not in page
    assert "quickest of" not in page


def test_one_question_is_tested(tmp_path):
    """The method under test against the others, and only where the experiment asks it."""
    seven = {name: [[0.1 * place + seed / 100] for seed in range(7)] for place, name in enumerate(LOSSES, start=1)}
    write_folder(tmp_path / "asked", seven)
    (asked,) = document.content_of(read_tables(tmp_path / "asked"), [])["comparisons"]
    assert asked["reference"] == "Global OHO"
    assert len(asked["rows"]) == 3
    write_folder(tmp_path / "not", LOSSES, figures=("anytime",))
    assert document.content_of(read_tables(tmp_path / "not"), [])["comparisons"] == []


def test_where_seeds_are_too_few_for_any_p_a_sentence_stands_for_the_table(tmp_path):
    write_folder(tmp_path / "runs", LOSSES)
    build_report(tmp_path / "runs", tmp_path / "report.pdf")
    text = (tmp_path / "report.txt").read_text()
    assert "both. 3 seeds cannot separate Global OHO from any of 3 other methods, whatever the losses" in text
    assert "with fewer than 7." in text
    assert "Beside Global OHO" not in text


def test_where_seconds_are_not_the_budget_their_disturbance_is_told_wherever_they_are_shown(tmp_path):
    spec = {**spec_of("fixed", 0), "budget": {"unit": "steps", "amount": 100}}
    records = [incumbent(100, 0.5), evaluation(100, 0.5)]
    first = {"environment": {**ENVIRONMENT, "commit": "before"}, "conditions": {}, "disturbed_because": ["it slept"]}
    identity = write_run(tmp_path, spec, records, disturbed_because=["it slept"], earlier=[first])
    write_manifest(tmp_path, Manifest("both", (), {}, (identity,)))
    tables = read_tables(tmp_path)
    told = "In 1 of 1 runs the clock was disturbed: losses are valid, seconds are not (last page)."
    assert told in setting(measured(tables.runs))
    slept, changed = problems(tables.runs)
    assert slept.endswith("losses valid, seconds not: it slept")
    assert changed.endswith("resumed with: another commit (before, then abc)")
    content = document.content_of(tables, [])
    (table,) = content["results"]
    assert table["rows"][0][6] == "2 †"
    assert table["marked"] == content["ledger_marked"] == "†: the clock of a run or more was disturbed (last page)."
    assert content["ledger"][0][0] == "Fixed †"
    assert ["commit", "abc, before"] in content["provenance"]


def test_the_report_is_the_same_bytes_for_the_same_records(tmp_path, monkeypatch, every_format):
    """With the fonts and dots that journals ask for, and without a folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setitem(style.SETTINGS, "pdf.fonttype", 42)
    monkeypatch.setitem(style.SETTINGS, "savefig.dpi", 300)
    write_folder(tmp_path / "runs", LOSSES, figures=("distribution",))
    pdfs = []
    for name in ("a", "b"):
        files = build_report(tmp_path / "runs", tmp_path / name / "report.pdf").files
        pdfs.append(files[0].read_bytes())
        assert {path.suffix for path in files} == {".pdf", ".html", ".txt", ".png", ".svg", ".csv"}
    assert pdfs[0] == pdfs[1]
    first, second = ((tmp_path / name / "report/distribution.pdf").read_bytes() for name in ("a", "b"))
    assert first == second


EDGES = {
    "one run": {("fixed", None): [[0.5]]},
    "all diverged": {("fixed", None): [[None], [None]], ("oho-global", None): [[None]]},
    "some diverged": {("fixed", None): [[None], [0.4], [0.6]], ("oho-global", None): [[0.2], [None]]},
    "no search": {("oho-global", None): [[0.2], [0.2]]},
    "nobody reaches": {("oho-global", None): [[0.1]], ("random-search", "fixed"): [[0.5], [0.5]]},
}


RARER = ("no search", "nobody reaches", "some diverged")
"""Of diverged runs among others another report is made: of one that never selected a model."""


@pytest.mark.parametrize("edge", [pytest.param(name, marks=pytest.mark.slow if name in RARER else ()) for name in EDGES])
def test_thin_data_gives_a_report_not_a_crash(edge, tmp_path):
    write_folder(tmp_path / "runs", EDGES[edge])
    built = build_report(tmp_path / "runs", tmp_path / "report.pdf")
    assert built.failed == []
    assert built.files[0].read_bytes().startswith(b"%PDF")


def test_single_runs_claim_nothing(tmp_path):
    write_folder(tmp_path, {("oho-global", None): [[0.2]], ("fixed", None): [[0.4]]})
    text = " ".join(distribution.findings(distribution.estimate(read_tables(tmp_path))))
    assert "fewer than 6 runs have no interval" in text
    assert not any(word in text for word in ("nan", "do not overlap", "worst start"))


@pytest.mark.parametrize("name", ["report.txt", "report"])
def test_a_name_of_another_kind_is_refused(name, tmp_path):
    write_folder(tmp_path, {("oho-global", None): [[0.2]]})
    with pytest.raises(ReportError, match=r"must end in \.pdf"):
        build_report(tmp_path, tmp_path / name)
    with pytest.raises(ReportError, match=r"\.svg"):
        build_figure("distribution", tmp_path, tmp_path / "figure.gif")


def test_a_figure_without_data_says_why(tmp_path):
    write_folder(tmp_path, EDGES["no search"])
    with pytest.raises(NoData, match="needs a measured Global OHO run, or one of a training"):
        performance.estimate(read_tables(tmp_path))
    with pytest.raises(ReportError, match="performance: "):
        build_figure("performance", tmp_path, tmp_path / "x.pdf")


def test_failed_and_missing_runs_are_told_and_not_drawn(tmp_path):
    ids = write_folder(tmp_path, {("fixed", None): [[0.5], [0.6]]})
    failed = write_run(tmp_path, spec_of("fixed", 7), [evaluation(1, 0.001)], status=Status.FAILED)
    write_manifest(tmp_path, Manifest("both", ("distribution",), {}, (*ids, failed, "0" * 16)))
    tables = read_tables(tmp_path)
    assert tables.runs["status"].value_counts().to_dict() == {"budget_reached": 2, "failed": 1, "missing": 1}
    assert distribution.estimate(tables).summary["n"].tolist() == [2]
    assert build_report(tmp_path, tmp_path / "report.pdf")


def test_runs_of_two_budgets_are_not_compared(tmp_path):
    ids = write_folder(tmp_path, LOSSES)
    other = {**spec_of("fixed", 9), "budget": {"unit": "seconds", "amount": 7.0}}
    more = write_run(tmp_path, other, [incumbent(100, 0.1), evaluation(100, 0.1)])
    write_manifest(tmp_path, Manifest("both", ("distribution", "performance", "anytime"), {}, (*ids, more)))
    tables = read_tables(tmp_path)
    for figure in (distribution, performance, anytime):
        with pytest.raises(NoData, match=r"differ in budget \(2 or 7 counted seconds\)"):
            figure.estimate(tables)


def test_experiments_that_cannot_be_compared_have_a_figure_each(tmp_path):
    root = tmp_path / "runs"
    write_folder(root, LOSSES, figures=("anytime",))
    seven = {"unit": "seconds", "amount": 7.0}
    others = [
        write_run(root, {**spec_of(name, 0), "budget": seven}, [incumbent(100, loss), evaluation(100, loss)])
        for name, loss in (("fixed", 0.4), ("oho-global", 0.1))
    ]
    write_manifest(root, Manifest("longer", ("anytime",), {}, tuple(others)))
    report = build_report(root, tmp_path / "report.pdf")
    drawn = {path.name for path in report.files if path.suffix == ".svg"}
    assert drawn == {"anytime-both.svg", "anytime-longer.svg"}
    text = (tmp_path / "report.txt").read_text()
    assert "any budget: both (anytime-both)" in text
    assert "any budget: longer (anytime-longer)" in text
    with pytest.raises(ReportError, match=r"differ in budget.*Choose one with --experiment: both, longer"):
        build_figure("anytime", root, tmp_path / "figure.pdf")
    build_figure("anytime", root, tmp_path / "figure.pdf", experiment="longer")
    assert (tmp_path / "figure.csv").read_text() == (tmp_path / "report" / "anytime-longer.csv").read_text()
    refusal = "--experiment other: does not feed the figure anytime; those that do: both, longer"
    with pytest.raises(ReportError, match=refusal):
        build_figure("anytime", root, tmp_path / "figure.pdf", experiment="other")


def test_where_none_of_them_can_be_drawn_that_is_said_once(tmp_path, caplog):
    root = tmp_path / "runs"
    write_folder(root, {("fixed", None): LOSSES["fixed", None]}, figures=("performance",))
    longer = {**spec_of("fixed", 0), "budget": {"unit": "seconds", "amount": 7.0}}
    more = write_run(root, longer, [incumbent(100, 0.1), evaluation(100, 0.1)])
    write_manifest(root, Manifest("longer", ("performance",), {}, (more,)))
    build_report(root, tmp_path / "report.pdf")
    text = (tmp_path / "report.txt").read_text()
    assert text.count("needs a measured Global OHO run") == caplog.text.count("needs a measured Global OHO run") == 1
    assert "(performance)" in text


def test_a_figure_that_no_experiment_names_says_so(tmp_path):
    write_folder(tmp_path, LOSSES, figures=("distribution",))
    with pytest.raises(ReportError, match="anytime: No experiment in this folder names it"):
        build_figure("anytime", tmp_path, tmp_path / "x.pdf")


def test_a_copy_of_a_data_set_is_named_as_such(tmp_path):
    losses = {("fixed", None): [[0.3]], ("oho-global", None): [[0.2]]}
    write_folder(tmp_path, losses, environment={**ENVIRONMENT, "data": "CIFAR-10 (JPEG)"})
    tables = read_tables(tmp_path)
    assert stamp(measured(tables.runs)).startswith("digits-mlp on CIFAR-10 (JPEG);")


def test_two_protocols_are_not_mixed(tmp_path):
    ids = write_folder(tmp_path, {("fixed", None): [[0.5]]})
    other = write_run(tmp_path, spec_of("fixed", 9), [evaluation(1, 0.5)], protocol=99)
    write_manifest(tmp_path, Manifest("both", ("distribution",), {}, (*ids, other)))
    with pytest.raises(ReportError, match="protocols"):
        read_tables(tmp_path)


def test_an_ended_run_with_a_torn_last_line_is_in_no_table(tmp_path):
    (identity,) = write_folder(tmp_path, {("fixed", None): [[0.5, 0.4]]})
    path = tmp_path / identity / "records.jsonl"
    assert len(read_tables(tmp_path).evaluations) == 2
    path.write_text(path.read_text() + json.dumps(evaluation(9, 0.1))[:30])
    with pytest.raises(RecordError, match=r"records\.jsonl:\d+:1: changed since it was written; remove .+ to run it again"):
        read_tables(tmp_path)
    assert run_id(spec_of("fixed", 0)) == identity
