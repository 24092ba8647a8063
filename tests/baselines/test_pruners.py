"""What every pruner does, on Optuna as it is."""

import json
import math
import random
import warnings
from dataclasses import asdict

import pytest

from baselines.pruners import PRUNERS
from bench.protocol import Trial

LONGEST = 9


def curve_from(level):
    """Falls from `level` + 1 to `level`."""
    return tuple(level + 1 / k for k in range(1, LONGEST + 1))


def finished(curve):
    return Trial({}, min(curve), 10 * len(curve), "finished", tuple(curve))


def verdicts(pruner, trials, curve):
    """After each validation up to the one that ends the trial."""
    found = []
    for count in range(1, len(curve) + 1):
        found.append(pruner.prunes(trials, curve[:count]))
        if found[-1]:
            break
    return found


def simulated(pruner, count, seed=0):
    """The trials of a search under a pruner; some diverge, one validates at infinity."""
    generator, trials = random.Random(seed), []
    for n in range(count):
        level = generator.random()
        curve = [level + generator.random() / k for k in range(1, LONGEST + 1)]
        if n == 7:
            curve[4] = math.inf
        if n % 10 == 9:
            trials.append(Trial({}, curve[0], 15, "diverged", (curve[0],)))
            continue
        found = verdicts(pruner, trials, curve)
        seen = tuple(curve[: len(found)])
        trials.append(Trial({}, min(seen), 10 * len(seen), "pruned" if found[-1] else "finished", seen))
    return trials


@pytest.fixture(params=PRUNERS)
def make(request):
    return lambda seed=0: PRUNERS[request.param](LONGEST, seed)


def test_a_clearly_worse_curve_is_pruned_and_a_better_one_is_not(make):
    trials = [finished(curve_from(1 + n / 100)) for n in range(40)]
    assert verdicts(make(), trials, curve_from(5.0))[-1]
    assert not any(verdicts(make(), trials, curve_from(0.5)))


def test_the_first_trial_goes_on(make):
    assert not any(verdicts(make(), [], curve_from(5.0)))


def test_no_validation_yet(make):
    assert not make().prunes([], [])
    assert not make().prunes(simulated(make(), 12), [])


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_ends_the_trial(make, loss):
    assert make().prunes([], [1.0, loss])
    assert make().prunes(simulated(make(), 12), [0.1, loss])


def test_one_rebuilt_at_any_time_says_the_same(make):
    class Checked:
        """Kept over the search, and compared with one built from records for this call alone."""

        kept, said = make(), set()

        def prunes(self, trials, curve):
            records = json.loads(json.dumps([asdict(trial) for trial in trials]))
            read = [Trial(**{**record, "curve": tuple(record["curve"])}) for record in records]
            verdict = self.kept.prunes(trials, curve)
            assert make().prunes(read, list(curve)) == verdict == self.kept.prunes(read, tuple(curve))
            self.said.add(verdict)
            return verdict

    trials = simulated(Checked(), 30)
    assert Checked.said == {True, False}
    assert {trial.status for trial in trials} == {"finished", "pruned", "diverged"}


def test_one_that_went_on_judges_what_was_before(make):
    trials = simulated(make(), 20)
    kept = make()
    for count in (20, 8, 15, 3):
        assert verdicts(kept, trials[:count], curve_from(0.5)) == verdicts(make(), trials[:count], curve_from(0.5))


def test_infinities_among_the_trials_raise_no_warning(make):
    trials = [finished((1.0, 0.5 + n, math.inf if n % 2 else 1.0)) for n in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any(verdicts(make(), trials, (0.9, 0.4, 0.3)))


def test_median_waits_for_five_finished_trials():
    trials = [finished(curve_from(1.0)) for _ in range(5)]
    assert not PRUNERS["median"](LONGEST, 0).prunes(trials[:4], [9.0])
    assert PRUNERS["median"](LONGEST, 0).prunes(trials, [9.0])


def test_successive_halving_judges_after_1_3_and_9_validations():
    trials = [finished(curve_from(0.0)) for _ in range(6)]
    pruner = PRUNERS["successive-halving"](LONGEST, 0)
    assert [pruner.prunes(trials, [*curve_from(0.0)[: count - 1], 9.0]) for count in range(1, 10)] == [
        count in (1, 3, 9) for count in range(1, 10)
    ]


def test_hyperband_puts_a_trial_in_a_bracket_by_number_and_seed():
    """What a bad loss after the first validation means depends on the bracket."""
    trials = [finished(curve_from(1.0)) for _ in range(40)]
    by_number = [PRUNERS["hyperband"](LONGEST, 0).prunes(trials[:count], [9.0]) for count in range(10, 40)]
    by_seed = [PRUNERS["hyperband"](LONGEST, seed).prunes(trials, [9.0]) for seed in range(20)]
    assert set(by_number) == set(by_seed) == {True, False}


def test_a_trial_too_short_for_a_validation():
    assert not PRUNERS["hyperband"](0, 0).prunes([], [1.0])
