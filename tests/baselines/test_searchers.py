"""What every searcher does, on the libraries as they are."""

import json
import math
import random
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from baselines.searchers import SEARCHERS, capped_losses
from bench.protocol import Dimension, Space, Trial, draw

LR = Dimension(low=1e-4, high=0.2, log=True)
DECAY = Dimension(low=1e-5, high=0.1, log=True, complement=True)
SPACE = Space(
    name="every kind",
    hyperparameters={
        "lr": LR,
        "gamma": DECAY,
        "momentum": Dimension(low=0.1, high=0.9),
        "trial_epochs": Dimension(low=1, high=3, integer=True),
        "step_size": Dimension(low=100, high=100000, log=True, integer=True),
        "keep": Dimension(low=0.25, high=0.5, complement=True),
        "published_lr": Dimension(low=1e-45, high=0.2, log=True, offset=1e-4),
    },
)
PLANE = ["lr", "gamma"]
MODELS = ["gaussian-process", "tpe", "optuna-gp", "cma-es"]


def surface(point):
    """Smooth, with its least value 0 at lr = 0.02, gamma = 0.99."""
    return math.log10(point["lr"] / 0.02) ** 2 + math.log10((1 - point["gamma"]) / 0.01) ** 2


def finished(point, loss):
    return Trial(point, loss, 300, "finished", (loss + 0.2, loss + 0.1, loss))


def history(count, names=PLANE, loss=surface):
    """Trials at draws, of every status."""
    trials = [finished(point, loss(point)) for point in (draw(SPACE, names, 5, n) for n in range(count))]
    for n, trial in enumerate(trials):
        if n % 5 == 2:
            trials[n] = Trial(trial.hyper, math.inf, 7, "diverged")
        elif n % 5 == 3:
            trials[n] = Trial(trial.hyper, trial.validation_loss + 0.1, 200, "pruned", trial.curve[:2])
    return trials


def made(name, names=PLANE, seed=3, space=SPACE):
    return SEARCHERS[name](space, names, seed)


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_first_point_is_where_every_method_of_the_seed_starts(name):
    assert made(name).propose([]) == draw(SPACE, PLANE, 3)


@pytest.mark.parametrize(("name", "starts"), [("gaussian-process", 5), ("tpe", 10), ("optuna-gp", 10)])
def test_random_starts_are_those_of_random_search(name, starts):
    searcher, trials = made(name), []
    for n in range(starts):
        trials.append(finished(searcher.propose(trials), 1.0 + n))
        assert trials[n].hyper == draw(SPACE, PLANE, 3, n)
    assert searcher.propose(trials) != draw(SPACE, PLANE, 3, starts)


@pytest.mark.parametrize("name", SEARCHERS)
def test_one_rebuilt_from_records_proposes_the_same(name):
    kept, trials = made(name), history(15)
    before = json.dumps([asdict(trial) for trial in trials])
    for count in (0, 3, 15):
        proposed = kept.propose(trials[:count])
        for disturb in (random.seed, np.random.seed, torch.manual_seed):
            disturb(count + 1)
        read = [Trial(**{**record, "curve": tuple(record["curve"])}) for record in json.loads(before)[:count]]
        assert made(name).propose(read) == proposed == kept.propose(trials[:count])
    assert json.dumps([asdict(trial) for trial in trials]) == before


@pytest.mark.parametrize("name", SEARCHERS)
def test_seeds_differ(name):
    first, second = made(name, seed=3), made(name, seed=4)
    assert any(first.propose(history(count)) != second.propose(history(count)) for count in (3, 15))


@pytest.mark.parametrize("name", SEARCHERS)
def test_points_keep_within_every_kind_of_law(name):
    names = list(SPACE.hyperparameters)
    trials = history(15, names)
    for count in (0, 1, 15):
        point = made(name, names).propose(trials[:count])
        assert list(point) == names
        for key, law in SPACE.hyperparameters.items():
            low, high = sorted((law.value(law.low), law.value(law.high)))
            assert low <= point[key] <= high
            assert type(point[key]) in (int, float)
            assert point[key] == round(point[key]) or not law.integer


@pytest.mark.parametrize("edge", [1e-5, 0.1])
@pytest.mark.parametrize("name", SEARCHERS)
def test_a_decay_factor_on_the_edge_can_be_told(name, edge):
    """1 − (1 − 1e-5) is a little less than 1e-5."""
    trials = [finished({"gamma": DECAY.value(edge), "lr": LR.high}, 1.0) for _ in range(12)]
    assert 0.9 <= made(name).propose(trials)["gamma"] <= 1 - 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_a_diverged_trial_counts_as_the_worst_and_one_more(name):
    trials = [finished(draw(SPACE, PLANE, 5, n), float(n % 7)) for n in range(15)]
    trials[4] = Trial(trials[4].hyper, math.inf, 7, "diverged")
    told = [replace(trial, validation_loss=min(trial.validation_loss, 7.0)) for trial in trials]
    assert made(name).propose(trials) == made(name).propose(told)


@pytest.mark.parametrize("name", ["gaussian-process", "optuna-gp"])
def test_a_huge_loss_does_not_hide_where_the_good_ones_are(name):
    """Whatever its size: before a training diverges, its loss may reach anything."""
    trials = [finished(point, surface(point)) for point in (draw(SPACE, PLANE, 3, n) for n in range(12))]
    worst = max(range(12), key=lambda n: trials[n].validation_loss)

    def proposed(loss):
        return made(name).propose([*trials[:worst], replace(trials[worst], validation_loss=loss), *trials[worst + 1 :]])

    assert surface(proposed(trials[worst].validation_loss)) < 0.1
    assert surface(proposed(1e20)) < 0.1
    assert proposed(1e20) == proposed(1e3)


CAPPED = [
    ([0.1, 0.2, 0.3, 1e20, math.inf], [0.1, 0.2, 0.3, 0.5, 0.5]),  # of four the second is the median
    ([0.1, 0.2, 0.3, 0.4, math.inf], [0.1, 0.2, 0.3, 0.4, 0.5]),
    ([5.0, 9.0, 10.0, math.inf], [5.0, 9.0, 10.0, 11.0]),  # the worst and one more is below the cap
    ([1.0, 1.0, 1.0, 2.0, 1e20], [1.0, 1.0, 1.0, 2.0, 5.0]),
    ([1.0, 1.0, math.inf], [1.0, 1.0, 2.0]),
    ([math.inf, math.inf], [11.0, 11.0]),
    ([-3e38, -1e-8, 3e38, 3e38], [-3e38, -1e-8, 3e38, 3e38]),
]


@pytest.mark.parametrize(("losses", "told"), CAPPED)
def test_what_a_gaussian_process_is_given(losses, told):
    assert capped_losses([finished({}, loss) for loss in losses]) == pytest.approx(told)


@pytest.mark.parametrize("status", ["diverged", "pruned", "finished"])
@pytest.mark.parametrize("name", SEARCHERS)
def test_nothing_but_infinities(name, status):
    curve = () if status == "diverged" else (math.nan,)
    trials = [Trial(draw(SPACE, PLANE, 5, n), math.inf, 7, status, curve) for n in range(12)]
    assert all(math.isfinite(value) for value in made(name).propose(trials).values())


@pytest.mark.parametrize("name", SEARCHERS)
def test_losses_of_any_size(name):
    trials = [finished(draw(SPACE, PLANE, 5, n), 1e38 if n % 2 else 1e-8 * n) for n in range(12)]
    assert all(math.isfinite(value) for value in made(name).propose(trials).values())


@pytest.mark.parametrize("name", ["gaussian-process", "cma-es"])
def test_a_pruned_trial_counts_with_its_best_loss(name):
    trials = history(15)
    told = [replace(trial, status="finished", curve=()) for trial in trials]
    assert made(name).propose(trials) == made(name).propose(told)


def test_tpe_ranks_a_pruned_trial_by_where_its_curve_ends():
    def proposed(end):
        trials = [Trial(draw(SPACE, PLANE, 5, n), 1.0, 2, "pruned", (1.0, end(n))) for n in range(15)]
        return made("tpe").propose(trials)

    assert proposed(lambda n: 1.0 + n) != proposed(lambda n: 20.0 - n)
    assert proposed(lambda n: 1.0 + n) == proposed(lambda n: 2.0 + 2 * n)


def test_optunas_gaussian_process_waits_for_ten_trials_that_were_not_pruned():
    trials = [Trial(draw(SPACE, PLANE, 3, n), 1.0, 2, "pruned", (1.0,)) for n in range(20)]
    trials += [finished(draw(SPACE, PLANE, 3, n), float(n)) for n in range(20, 30)]
    assert made("optuna-gp").propose(trials[:29]) == draw(SPACE, PLANE, 3, 29)
    assert made("optuna-gp").propose(trials) != draw(SPACE, PLANE, 3, 30)


def test_sobol_points_stand_one_in_each_sixteenth():
    trials = history(17)
    points = [made("sobol").propose(trials[:count]) for count in range(1, 17)]
    lr_fractions = [math.log(point["lr"] / LR.low) / math.log(LR.high / LR.low) for point in points]
    decay_fractions = [math.log((1 - point["gamma"]) / DECAY.low) / math.log(DECAY.high / DECAY.low) for point in points]
    for fractions in (lr_fractions, decay_fractions):
        assert sorted(int(16 * fraction) for fraction in fractions) == list(range(16))


def test_cma_es_starts_anew_where_it_has_converged():
    """Losses this close are one loss: after 21 generations of 6 the order of the trials is forgotten."""

    def proposed(count, step):
        return made("cma-es").propose([finished(draw(SPACE, PLANE, 5, n), n * step) for n in range(1 + count)])

    assert proposed(125, step=1e-15) != proposed(125, step=-1e-15)
    assert proposed(126, step=1e-15) == proposed(126, step=-1e-15)
    assert proposed(126, step=1.0) != proposed(126, step=-1.0)


@pytest.mark.parametrize("name", SEARCHERS)
def test_nothing_to_search(name):
    with pytest.raises(ValueError, match="nothing is left open to search"):
        made(name, [])


def test_cma_es_on_a_line():
    with pytest.raises(ValueError, match="needs at least two open hyperparameters but has one, lr"):
        made("cma-es", ["lr"])


@pytest.mark.parametrize(("count", "enough"), [(2, 1), pytest.param(5, 4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MODELS)
def test_models_beat_random_search(name, count, enough):
    """For most seeds their best of 30 trials is below half of random search's, taken in the median."""

    def best(searcher, target):
        trials, lowest = [], math.inf
        while len(trials) < 30 and lowest > target:
            point = searcher.propose(trials)
            trials.append(finished(point, surface(point)))
            lowest = min(lowest, surface(point))
        return lowest

    target = statistics.median(best(made("random", seed=seed), 0) for seed in range(2, 7)) / 2
    assert sum(best(made(name, seed=seed), target) <= target for seed in range(2, 2 + count)) >= enough


@pytest.mark.slow
def test_libraries_load_late_and_keep_quiet():
    script = """
import sys
from baselines.pruners import PRUNERS
from baselines.searchers import SEARCHERS, capped_losses
from bench.protocol import Dimension, Space, Trial, draw
assert not {"optuna", "skopt", "scipy.stats", "cmaes"} & set(sys.modules)
law = Dimension(low=1, high=3, integer=True)
space = Space(name="s", hyperparameters={"a": law, "b": law})
trials = [Trial(draw(space, "ab", 0, n), 1.0, 1, "finished", (2.0, 1.0)) for n in range(12)]
for make in SEARCHERS.values():
    make(space, "ab", 0).propose(trials)
for make in PRUNERS.values():
    make(3, 0).prunes(trials, (2.0,))
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


WHOLE = Dimension(low=1, high=3, integer=True)
QUARTERS = Dimension(low=0.5, high=4.5, integer=True, log=True)


def proposed(name, law, count, seed=3):
    """Returns how often each value came in so many proposals, none of which depends on losses."""
    searcher, trials = made(name, ["law", "lr"], seed, Space(name="one", hyperparameters={"law": law, "lr": LR})), []
    for _ in range(count):
        trials.append(finished(searcher.propose(trials), 1.0))
    return Counter(trial.hyper["law"] for trial in trials[1:])


def test_random_and_sobol_draw_each_whole_number_as_often_as_the_law_says():
    """For 1 to 3, chi-square with two degrees of freedom is below 9.2 with a probability of 99 %."""
    counts = proposed("random", WHOLE, 601)
    assert set(counts) == {1, 2, 3}
    assert sum((counts[value] - 200) ** 2 / 200 for value in (1, 2, 3)) < 9.2
    assert all(abs(count - 256 / 3) < 1 for count in proposed("sobol", WHOLE, 257).values())


def test_whole_numbers_of_a_logarithmic_law_come_as_often_as_the_numbers_nearest_to_them():
    counts = proposed("sobol", QUARTERS, 257)
    shares = {value: math.log((value + 0.5) / (value - 0.5)) / math.log(9) for value in (1, 2, 3, 4)}
    assert set(counts) == set(shares)
    assert all(abs(counts[value] - 256 * share) < 2 for value, share in shares.items())


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_rebuilt_from_records_keeps_to_the_values_of_the_law(name):
    laws = {
        "a": WHOLE, "b": QUARTERS, "c": Dimension(low=2.5, high=3.5, integer=True),
        "d": Dimension(low=-3, high=0, integer=True, complement=True), "e": DECAY,
    }  # fmt: skip
    space, trials = Space(name="few", hyperparameters=laws), []
    allowed = {"a": {1, 2, 3}, "b": {1, 2, 3, 4}, "c": {3}, "d": {1, 2, 3, 4}}
    for count in (0, 12):
        while len(trials) < count:
            trials.append(finished(draw(space, list(laws), 7, len(trials)), float(len(trials) % 4)))
        point = made(name, list(laws), space=space).propose(trials)
        assert all(point[key] in values and type(point[key]) is int for key, values in allowed.items())
        assert 0.9 <= point["e"] <= 1 - 1e-6
        trials.append(finished(json.loads(json.dumps(point)), 0.5))
