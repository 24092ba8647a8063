"""Figures about one setting of OHO: from records to numbers exactly, to axes lightly."""

import numpy as np
import pytest
from made_up_runs import write_oho

from bench.records import ReportError
from reports import published
from reports.api import build_figure
from reports.figures import convergence, reset, sets, stability, tangents


def ends(loss, rates=(0.1,), norms=(1.0, 1.0)):
    return [(0, 2.3, [rates[0]], (0.0, 0.0)), (100, loss, list(rates), norms)]


def test_reset_orders_periods_with_never_last(tmp_path):
    runs = [("oho-global", {"reset_every": every}, seed, ends(loss + seed))
            for every, loss in ((0, 0.1), (100, 0.2), (1, 0.4)) for seed in (0, 1, 2)]  # fmt: skip
    estimates = reset.estimate(write_oho(tmp_path, "reset", runs, task="cifar10-resnet18"))
    assert estimates.summary["every"].tolist() == [1, 100, 0]
    assert estimates.summary["median"].tolist() == [1.4, 1.2, 1.1]
    assert "It is lowest at never" in reset.findings(estimates)[0]
    assert reset.published_rows(estimates)[1:] == [["1", "1.4", "0.46"], ["100", "1.2", "0.44"], ["never", "1.1", "0.39"]]
    reset.draw(estimates)


@pytest.mark.parametrize(
    ("task", "data", "is_papers"),
    [
        ({"name": "mnist-mlp", "width": 128, "hidden_layers": 3, "batch_size": 200}, "MNIST", True),
        ({"name": "mnist-mlp"}, float("nan"), True),
        ({"name": "mnist-mlp"}, "Fashion-MNIST", False),
        ({"name": "mnist-mlp", "width": 32}, "MNIST", False),
        ({"name": "mnist-mlp", "drift": {"rotate": 90.0}}, "MNIST", False),
        ({"name": "digits-mlp"}, "digits", False),
    ],
)
def test_published_values_are_of_the_papers_network_on_its_data(task, data, is_papers):
    assert published.has_task(task, data) == is_papers


def test_sets_are_counted_from_the_records(tmp_path):
    runs = [("oho-global", {}, 0, ends(0.3)), ("oho-layerwise", {"influence": "exact"}, 0, ends(0.2, (0.1, 0.2))),
            ("oho-layerwise", {"influence": "collapsed"}, 0, ends(0.25, (0.1, 0.2)))]  # fmt: skip
    estimates = sets.estimate(write_oho(tmp_path, "sets", runs))
    rows = estimates.summary[["sets", "influence", "median", "seconds"]].to_numpy().tolist()
    assert rows == [[1, "exact", 0.3, 1.0], [2, "collapsed", 0.25, 3.0], [2, "exact", 0.2, 2.0]]
    assert any("with 2 sets" in sentence for sentence in sets.findings(estimates))
    sets.draw(estimates)


def test_convergence_takes_the_weights_of_each_group(tmp_path):
    runs = [("oho-layerwise", {"lr": start, "meta_rate": 1e-3}, 0, ends(0.2, (end, 9.0, 3 * end, 9.0)))
            for start, end in ((1e-3, 0.2), (1e-1, 0.4))]  # fmt: skip
    runs += [("oho-global", {"lr": None, "meta_rate": rate}, 0, ends(loss)) for rate, loss in ((1e-4, 0.3), (1e-3, 0.1))]
    estimates = convergence.estimate(write_oho(tmp_path, "convergence", runs))
    last = estimates.paths[estimates.paths["step"] == 100]
    assert sorted(last["lr"].round(6)) == [0.2, 0.4, 0.6, 1.2]
    assert set(last["group"]) == {1, 2}
    first = estimates.paths[estimates.paths["step"] == 0]
    assert len(first) == len(last)  # one recorded rate is that of all groups
    curve = estimates.losses[(estimates.losses["method"] == "oho-global") & (estimates.losses["meta_rate"] == 1e-3)]
    assert curve["median"].tolist() == [2.3, 0.1]
    text = " ".join(convergence.findings(estimates))
    assert "a factor of 100 apart end within a factor of 2 in group 1 and 2 in group 2" in text
    assert "is lowest, 0.1, at a meta-rate of 0.001" in text
    convergence.draw(estimates)


def test_convergence_takes_the_end_of_each_run(tmp_path):
    """A run that stopped early ends where it stopped."""
    runs = [("oho-layerwise", {"lr": start, "meta_rate": 1e-3}, 0, ends(0.2, (end,)))
            for start, end in ((1e-3, 0.2), (1e-1, 0.4))]  # fmt: skip
    runs[0] = (*runs[0][:3], [(0, 2.3, [1e-3], (0.0, 0.0)), (50, 0.2, [0.02], (1.0, 1.0))])
    runs += [("oho-global", {"lr": None, "meta_rate": rate}, 0, ends(loss)) for rate, loss in ((1e-4, 0.3), (1e-3, 0.1))]
    text = " ".join(convergence.findings(convergence.estimate(write_oho(tmp_path, "convergence", runs))))
    assert "end within a factor of 20" in text


def test_tangents_are_medians_and_end_where_they_are_not_finite(tmp_path):
    runs = [("oho-global", {}, seed, [(0, 2.3, [0.1], (0.0, 0.0)), (50, 0.5, [0.1], (norm, 1.0)), (100, 0.4, [0.1], late)])
            for seed, norm, late in ((0, 10.0, (None, 1.0)), (1, 20.0, (None, 1.0)), (2, 30.0, (7.0, 1.0)))]  # fmt: skip
    estimates = tangents.estimate(write_oho(tmp_path, "tangents", runs))
    assert estimates.curves.loc[estimates.curves["name"] == "lr", "median"].tolist() == [20.0, np.inf]
    assert "20 to 20 with respect to the learning rate" in tangents.findings(estimates)[0]
    tangents.draw(estimates)


def test_stability_takes_the_largest_norm_and_counts_explosions(tmp_path):
    runs = []
    for lr, bigs in ((0.1, (3.0, 4.0, 5.0)), (1.0, (6.0, None, None))):
        for seed, big in enumerate(bigs):
            evaluations = [(50, 0.5, [lr], (big, 1.0)), (100, 0.4, [lr], (1.0, 1.0))]
            runs.append(("oho-global", {"lr": lr, "meta_rate": 0.0}, seed, evaluations))
    runs += [("oho-global", {"lr": 0.1, "meta_rate": 1e-3}, 0, ends(0.2))]
    estimates = stability.estimate(write_oho(tmp_path, "stability", runs))
    line = estimates.summary[(estimates.summary["panel"] == "A") & (estimates.summary["name"] == "lr")]
    assert line["median"].tolist() == [4.0, np.inf]
    assert line["exploded"].tolist() == [0, 2]
    assert "it is not finite in some runs from 1 on" in stability.findings(estimates)[0]
    axes = stability.draw(estimates).axes[0]
    assert [text.get_text() for text in axes.texts] == ["4", "1", "2/3"]
    assert len(axes.get_lines()) == 2  # the cross


@pytest.mark.parametrize("figure", ["convergence", "sets", "tangents", "stability", "reset"])
@pytest.mark.parametrize("method", ["fixed", "oho-global"])
def test_a_figure_without_its_runs_is_a_sentence(figure, method, tmp_path):
    evaluations = [(100, 0.2, [0.1], ())] if method == "fixed" else ends(0.2)
    write_oho(tmp_path, figure, [(method, {}, 0, evaluations)])
    if (figure, method) == ("tangents", "oho-global"):
        assert build_figure(figure, tmp_path, tmp_path / "figure.pdf")
        return
    with pytest.raises(ReportError, match=f"{figure}: .*not drawn"):
        build_figure(figure, tmp_path, tmp_path / "figure.pdf")


def test_convergence_calls_methods_by_what_their_labels_have_in_common(tmp_path):
    runs = [("oho-layerwise", {"lr": 0.1, "meta_rate": 1e-3, "label": "From 0.1"}, 0, ends(0.2, rates=[0.1, 0.2] * 2))]
    for name, label in (("oho-global", "Global"), ("oho-full", "Full")):
        runs += [(name, {"meta_rate": rate, "label": f"{label}, {rate:g}"}, 0, ends(rate)) for rate in (1e-4, 1e-3)]
    found = convergence.estimate(write_oho(tmp_path, "convergence", runs))
    assert set(found.rates["method"]) == set(found.losses["method"]) == {"Global", "Full"}
