"""Figures about sources, shocks, exactness, transplants and profiles: from records to numbers exactly, to axes lightly."""

import numpy as np
import pytest
from made_up_runs import errors, part_of, write_curves

from bench.records import ReportError
from reports.api import build_figure
from reports.figures import exactness, profiles, source, tangents, transplant
from reports.statistics import performance_profile
from reports.style import beyond_log_axes


def test_source_orders_batch_sizes_and_tells_the_training_batch(tmp_path):
    runs = []
    for options, loss in (({"source": "training"}, 0.5), ({"validation_batch_size": 100}, 0.3),
                          ({"validation_batch_size": 20}, 0.4)):  # fmt: skip
        given = {"source": "validation", **options}
        runs += [("oho-global", given, seed, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {}) for seed in (0, 1, 2)]
    runs += [("fixed", {"lr": 0.1}, 0, None, [(0, 2.3, 0.1), (100, 0.6, 0.1)], {})]
    estimates = source.estimate(write_curves(tmp_path, "source", runs))
    assert estimates.summary["size"].tolist()[:3] == [0.0, 20.0, 100.0]
    last = estimates.curves[estimates.curves["epoch"] == 10].set_index("label")["median"]
    assert sorted(last) == [0.3, 0.4, 0.5, 0.6]
    text = " ".join(source.findings(estimates))
    assert "training batch, the median final test loss of the present model is 0.5, above that" in text
    assert "0.4 (20) and 0.3 (100): it falls throughout" in text
    assert "No training here overfits" in text
    source.draw(estimates)


def test_source_takes_the_tasks_validation_batch_where_none_is_given(tmp_path):
    points = [(0, 2.3, 0.1), (100, 0.3, 0.1)]
    runs = [("oho-global", {"source": "training"}, 0, None, points, {}),
            ("oho-global", {"source": "validation", "validation_batch_size": None}, 0, None, points, {})]  # fmt: skip
    tables = write_curves(tmp_path, "source", runs)
    tables.runs["task_options"] = [{"name": "digits-mlp", "validation_batch_size": 50}] * 2
    assert source.estimate(tables).summary["size"].dropna().tolist() == [50.0]


def test_exactness_tells_errors_and_losses(tmp_path):
    points = [(0, 2.3, 0.1), (50, 0.5, 0.1), (100, 0.2, 0.1)]
    runs = [("oho-published", {}, seed, None, points, errors(0.5, 1.5, 0.25)) for seed in (0, 1, 2)]
    runs += [("oho-global", {}, seed, None, points, errors(0.0, 0.0, 0.0)) for seed in (0, 1, 2)]
    estimates = exactness.estimate(write_curves(tmp_path, "exactness", runs))
    row = estimates.summary.set_index("label").loc["oho-published"]
    assert row[["error_lr", "error_weight_decay", "wrong_sign", "median"]].tolist() == [0.5, 1.5, 0.25, 0.2]
    assert estimates.summary["label"].tolist() == ["oho-published", "oho-global"]
    assert "oho-published with respect to the learning rate are off by 50 %" in exactness.findings(estimates)[0]
    rows = {row[0]: row[1:] for row in exactness.published_rows(estimates)}
    assert rows["oho-published"][:4] == ["0.5", "—", "—", "25 %"]
    exactness.draw(estimates)


def test_exactness_tells_bias_and_noise(tmp_path):
    points = [(0, 2.3, 0.1), (50, 0.5, 0.1), (100, 0.2, 0.1)]
    runs = [("oho-averaged", {}, seed, None, points, errors(0.1, 0.1, 0.0, bias=-0.024, noise=0.3)) for seed in (0, 1, 2)]
    runs += [("oho-default", {}, seed, None, points, errors(0.1, 0.1, 0.0, bias=-1e-5, noise=0.0)) for seed in (0, 1, 2)]
    runs += [("oho-global", {}, seed, None, points, errors(0.0, 0.0, 0.0, bias=0.0, noise=0.0)) for seed in (0, 1, 2)]
    rows = exactness.published_rows(exactness.estimate(write_curves(tmp_path, "exactness", runs)))
    assert {row[0]: row[2:4] for row in rows} == {
        "Method": ["Bias", "Noise"], "oho-averaged": ["−2.4 %", "30.0 %"], "oho-default": ["0.0 %", "0.0 %"],
        "oho-global": ["—", "—"],
    }  # fmt: skip


def test_what_was_compared_at_no_step_has_no_error(tmp_path):
    points = [(0, 2.3, 0.1), (50, 0.5, 0.1), (100, 0.2, 0.1)]
    runs = [("oho-averaged", {}, seed, None, points, errors(0.1, None, 0.0)) for seed in (0, 1, 2)]
    runs += [("oho-global", {}, seed, None, points, errors(0.1, 1.5 if seed == 0 else None, 0.0)) for seed in (0, 1, 2)]
    lost = [errors(None, None, None) if seed else errors(0.1, 1.5, 0.0) for seed in (0, 1, 2)]
    runs += [("oho-published", {}, seed, None, points, lost[seed]) for seed in (0, 1, 2)]
    rows = exactness.published_rows(exactness.estimate(write_curves(tmp_path, "exactness", runs)))
    assert {row[0]: row[5] for row in rows[1:]} == {"oho-averaged": "—", "oho-global": "1.5", "oho-published": "∞"}


def test_where_no_method_errs_the_figure_says_so(tmp_path):
    points = [(0, 2.3, 0.1), (50, 0.5, 0.1), (100, 0.2, 0.1)]
    runs = [("oho-global", {}, seed, None, points, errors(0.0, 0.0, 0.0)) for seed in (0, 1, 2)]
    figure = exactness.draw(exactness.estimate(write_curves(tmp_path, "exactness", runs)))
    assert [axes.texts[0].get_text() for axes in figure.axes[:2]] == ["no error above rounding"] * 2
    assert beyond_log_axes(figure) == 0


def test_variants_of_one_method_differ_in_dashes(tmp_path):
    points = [(0, 2.3, 0.1), (100, 0.2, 0.1)]
    runs = [("oho-published", {"label": label, "meta_rate": size}, 0, None, points, errors(size, size, 0.1))
            for label, size in (("Published", 0.1), ("Published, full", 0.2))]  # fmt: skip
    figure = exactness.draw(exactness.estimate(write_curves(tmp_path, "exactness", runs)))
    one, other = figure.axes[0].get_lines()
    assert one.get_color() == other.get_color()
    assert one.get_linestyle() != other.get_linestyle()


def test_transplant_groups_by_donor(tmp_path):
    def over(order):
        return {"order": order, "over": {**part_of("oho-global"), "label": "oho-global"}}

    runs = [("oho-global", {}, seed, None, [(0, 2.3, 0.1), (100, 0.1 + seed, 0.1)], {}) for seed in (0, 1, 2)]
    for order, loss in (("kept", 0.2), ("shuffled", 0.4), ("mean", 0.3)):
        runs += [("transplant", over(order), seed, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {}) for seed in (0, 1, 2)]
    runs += [("oho-default", {}, 0, None, [(0, 2.3, 0.1), (100, 0.9, 0.1)], {})]  # with no transplant of its own
    estimates = transplant.estimate(write_curves(tmp_path, "transplant", runs))
    assert estimates.summary[["order", "median"]].to_numpy().tolist() == [
        ["oho", 1.1], ["kept", 0.2], ["shuffled", 0.4], ["mean", 0.3],
    ]  # fmt: skip
    kept = estimates.runs[estimates.runs["order"] == "kept"].sort_values("seed")
    assert kept["difference"].tolist() == pytest.approx([0.1, -0.9, -1.9])
    transplant.draw(estimates)


def test_performance_profiles_are_exact():
    ratios, factors = np.array([1.0, 1.0, 2.0, np.inf]), np.array([1.0, 1.5, 2.0, 8.0])
    share, low, high = performance_profile(ratios, factors)
    assert share.tolist() == [0.5, 0.5, 0.75, 0.75]
    assert np.isnan([low, high]).all()  # four problems have no interval
    share, low, high = performance_profile(np.tile(ratios, 2), factors)
    assert share.tolist() == [0.5, 0.5, 0.75, 0.75]
    assert (low <= share).all()
    assert (share <= high).all()


def test_strata_keep_their_weight():
    """Half of the problems are always within, half never: whatever is drawn within each half, the share is a half."""
    ratios, halves = np.array([1.0] * 5 + [9.0] * 5), ["a"] * 5 + ["b"] * 5
    assert [float(end[0]) for end in performance_profile(ratios, np.array([2.0]), halves)] == [0.5, 0.5, 0.5]
    share, low, high = performance_profile(ratios, np.array([2.0]))
    assert low[0] < share[0] < high[0]


def test_profiles_take_the_problems_that_all_methods_have(tmp_path):
    losses = {"fixed": [0.4, 0.1, 0.3, None], "oho-global": [0.2, 0.2, 0.2, 0.5]}
    runs = [(name, {}, seed, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {})
            for name, values in losses.items() for seed, loss in enumerate(values)]  # fmt: skip
    runs += [("fixed", {}, 9, None, [(0, 2.3, 0.1), (100, 0.1, 0.1)], {})]
    estimates = profiles.estimate(write_curves(tmp_path, "profiles", runs))
    assert estimates.problems == 4
    ratios = estimates.ratios.pivot(index="seed", columns="label", values="ratio")
    assert ratios["fixed"].tolist() == [2.0, 1.0, pytest.approx(1.5), np.inf]
    assert ratios["oho-global"].tolist() == [1.0, 2.0, 1.0, 1.0]
    assert "oho-global is most often best, on 75 % of 4 problems." in profiles.findings(estimates)
    profiles.draw(estimates)


def test_of_many_methods_profiles_colour_five(tmp_path):
    """The best, the best of OHO whatever its place, who is most often near the best, and the next ones."""
    losses = {"adam": (0.11, 0.1), "fixed": (0.1, 0.14), **{f"method-{n}": (0.12 + n / 100,) * 2 for n in range(6)}}
    runs = [(name, {}, seed, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {})
            for name, own in {**losses, "oho-global": (0.5, 0.6)}.items() for seed, loss in enumerate(own)]  # fmt: skip
    estimates = profiles.estimate(write_curves(tmp_path, "profiles", runs))
    figure = profiles.draw(estimates)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == ["adam", "fixed"]
    assert names[-2:] == ["oho-global", "4 other methods"]
    bold = {text.get_text() for text in legend.get_texts() if text.get_fontweight() == "bold"}
    assert bold == {"adam", "fixed", "method-0", "method-1", "oho-global"}
    said = "The best of OHO, oho-global, is best on 0 %, and within a factor of 1.1 on 0 % and of 2 on 0 %."
    assert profiles.findings(estimates)[-1] == said
    rows = profiles.published_rows(estimates)
    assert {row[0] for row in rows[1:]} == {"oho-global", *losses}  # grey methods have their names and shares in the table
    assert next(row for row in rows if row[0] == "fixed")[1:4] == ["50 %", "50 %", "100 %"]


def test_correlations_are_the_third_panel(tmp_path):
    points = [(0, 2.3, 0.1), (50, 0.5, 0.1), (100, 0.2, 0.1)]
    norms = {"influence_norm_lr": 2.0, "influence_norm_weight_decay": 3.0}
    found = {"gradient_correlation_mean": 0.4, "gradient_correlation_deviation": 0.1}
    runs = [("oho-global", {}, seed, None, points, {**norms, **found}) for seed in (0, 1, 2)]
    runs += [("fixed", {}, seed, None, points, found) for seed in (0, 1, 2)]
    estimates = tangents.estimate(write_curves(tmp_path, "tangents", runs))
    assert estimates.correlations[["mean", "deviation"]].drop_duplicates().to_numpy().tolist() == [[0.4, 0.1]]
    assert set(estimates.correlations["label"]) == {"fixed", "oho-global"}
    assert "0.40 to 0.40 (fixed)" in tangents.findings(estimates)[1]
    assert len(tangents.draw(estimates).axes) == 3


NEW = ["source", "resiliency", "exactness", "transplant", "profiles"]


@pytest.mark.parametrize("figure", NEW)
@pytest.mark.parametrize("loss", [0.3, None])
def test_without_its_runs_it_is_a_sentence(figure, loss, tmp_path):
    write_curves(tmp_path, figure, [("fixed", {}, 0, None, [(0, 2.3, 0.1), (100, loss, 0.1)], {})])
    with pytest.raises(ReportError, match=f"{figure}: .*not drawn"):
        build_figure(figure, tmp_path, tmp_path / "figure.pdf")


def diverged(figure):
    """What each figure needs, with nothing finite in it."""
    lost = [(0, None, 0.1), (100, None, None)]
    event = {"epoch": 3.0, "set": {"lr": 0.2}}
    over = {"order": "kept", "over": {**part_of("oho-global"), "label": "oho-global"}}
    return {
        "source": [("oho-global", {"source": "training"}, 0, None, lost, {}),
                   ("oho-global", {"source": "validation", "validation_batch_size": 9}, 0, None, lost, {})],
        "resiliency": [("oho-global", {}, 0, None, lost, {}), ("oho-global", {}, 0, event, lost, {})],
        "exactness": [("oho-published", {}, 0, None, lost, errors(None, None, None))],
        "transplant": [("oho-global", {}, 0, None, lost, {}), ("transplant", over, 0, None, lost, {})],
        "profiles": [(name, {}, seed, None, lost, {}) for name in ("fixed", "adam") for seed in (0, 1)],
    }[figure]  # fmt: skip


@pytest.mark.parametrize("figure", NEW)
def test_where_all_diverged_it_is_a_sentence(figure, tmp_path):
    write_curves(tmp_path, figure, diverged(figure))
    with pytest.raises(ReportError, match=r"finite .*not drawn"):
        build_figure(figure, tmp_path, tmp_path / "figure.pdf")
