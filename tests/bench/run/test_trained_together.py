"""Runs that are trained together are what they would have been alone, to rounding."""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import METHOD_LINES, StoppedAfter, experiment, run_one
from ruamel.yaml import YAML
from torch import nn

from bench.experiment.plugins import entry_of
from bench.experiment.spec import method_of, options_in, task_of
from bench.process.signals import Interrupted
from bench.protocol import CannotStackError, Kick, Ledger, Split, Stacked, select
from bench.protocol.batch_norm import BatchNorm
from bench.protocol.stacked import why_not
from bench.records import RunWriter, Status, StorageError, read_run, run_id
from bench.run import population
from bench.run.batch_key import batch_key
from bench.run.population import run_together
from bench.tracking.wandb_sink import NoSink

SMALL = ["task.width=8", "task.batch_size=60"]


def is_batched(line):
    """Returns whether runs of a method are trained together if their budget is in steps."""
    try:
        return bool(batch_key({"method": YAML(typ="safe").load(line), "budget": {"unit": "steps"}}))
    except CannotStackError:
        return False


LINES = {name: line for name, line in METHOD_LINES.items() if is_batched(line)} | {
    "collapsed": "{name: oho-layerwise, groups: 2, influence: collapsed, meta_rate: 1e-3}",
    "noisy": "{name: oho-global, meta_rate: 1e-3, temperature: 1e-6, reset_every: 7, discount: 0.9, update_every: 2}",
    "own-source": "{name: oho-default, optimizer: adamw, lr: 1e-3, source: training}",
    "averaged": "{name: cosine, optimizer: adam, lr: 0.01, average: 8}",
    "averaged-oho": "{name: oho-default, average: uniform}",
    "oho-in-windows": "{name: oho-averaged, windows: {first: 5, length: 2, period: 4}}",
    "averaged-sets": "{name: oho-averaged, groups: 2, influence: collapsed, windows: {first: 5, length: 2, period: 4}}",
    "schedule-free": "{name: oho-global, optimizer: momentum, meta_rate: 1e-3, average: schedule-free}",
    "tuned-loss": "{name: oho-default, tune_loss: [label_smoothing, input_noise]}",
    "part": "{name: oho-global, meta_rate: 1e-3, tune_loss: [input_noise], curvature_fraction: 0.5}",
    "compared": "{name: oho-full, meta_rate: 1e-3, influence: collapsed, compare_exact: true}",
    "bounded": "{name: oho-averaged, compare_exact: true, bounded_twin: true, windows: {first: 5, length: 2, period: 4}}",
    "published": "{name: oho-published, variant: full, meta_rate: 1e-3, compare_exact: true}",
    "published-layerwise": "{name: oho-published, variant: layerwise, groups: 2, meta_rate: 1e-3}",
    "transplant": "{name: transplant, epochs: 1, over: {name: oho-default, average: 8, tune_loss: [label_smoothing]}}",
    "searches": "{name: random-search, trial_epochs: 1, over: {name: one-cycle, optimizer: momentum, average: 4}}",
    "drifting": "{name: fixed, average: 8}",
    "diverging-searches": "{name: random-search, trial_epochs: 1, over: {name: fixed, optimizer: momentum, average: 4}}",
    "drifting-searches": "{name: sobol-search, trial_epochs: 1, over: {name: fixed}}",
    "drifting-oho": "{name: oho-default, compare_exact: true}",
}
DRIFT = "task.drift={rotate: 90, over_epochs: 2}"


STEPS = 20


def advance_to(steps, states, advance):
    """Advances trainings up to so many steps in chunks, as the runner does."""
    while (made := states[0].step) < steps:
        advance(steps=1 if states[0].spans_budget else min(5, steps - made), progress=made / STEPS, ledger=Ledger())


def advance_together(steps, states, batch):
    """Does what `advance_to` does in larger chunks, in which a batch knows its progress."""
    while (made := states[0].step) < steps:
        progress = lambda further, made=made: (made + further) / STEPS  # noqa: E731
        batch.advance(steps=min(5, steps - made), progress=progress, ledger=Ledger())


def trainings(line, folder, double, overrides):
    spec = experiment(folder, "fixed", overrides=[*SMALL, *overrides]).specs[0]
    options = YAML(typ="safe").load(line)
    entry = entry_of("method", {"name": options["name"]})
    over = options.pop("over", None)
    given = entry.options.model_validate({**options_in(options), **({} if over is None else {"over": over})})
    spec = spec | {"method": given.model_dump(mode="json") | options}
    task, _ = task_of(spec, torch.device("cpu"), None)
    if double:
        train, validation = (Split(part.inputs.double(), part.targets) for part in (task.train, task.validation))
        task = replace(task, train=train, validation=validation)
    method = method_of(spec)
    return entry, method, lambda: [begun(method, replace(task, world=replace(task.world)), seed) for seed in (0, 1)]


def begun(method, task, seed):
    """Returns a training before its first step, whose untrained model was selected, as the runner begins one."""
    state = method.init(task, seed)
    task.world.step = 0  # a method may have trained for its set-up
    select(state)
    return state


def compare(name, folder, *, double, tolerance):
    """Makes two trainings alone and together, the latter saved and restored half-way, and compares them."""
    overrides = [DRIFT] if name.startswith("drifting") else []
    entry, method, new = trainings(LINES[name], folder, double, overrides)
    alone, together = new(), new()
    if name.startswith("diverging"):  # so that one's next trial is earlier than the other's
        for states in (alone, together):
            states[1].inner.kick(Kick("lr", 1e300 if double else 3e38))
    for state in alone:
        advance_to(STEPS, [state], partial(method.advance, state))
    for steps in (STEPS // 2, STEPS):
        saved = [state.saved() for state in together]
        together = [method.restored(state.task, state.seed, kept) for state, kept in zip(together, saved, strict=True)]
        for state in together:
            state.task.world.step = state.step
        stacked = Stacked([state.task for state in together], [state.model for state in together])
        batch = entry.batching.build(together, stacked)
        advance_together(steps, together, batch)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(
            dict(ours.model.state_dict()), dict(theirs.model.state_dict()), rtol=tolerance, atol=tolerance
        )
        torch.testing.assert_close(ours.curve, theirs.curve, rtol=tolerance, atol=0)
        torch.testing.assert_close(ours.incumbent.validation_loss, theirs.incumbent.validation_loss, rtol=tolerance, atol=0)
        for name in ("step", "trial_step"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in ("step", "judged"):
            assert getattr(ours.incumbent, name) == getattr(theirs.incumbent, name)
        assert [(each.status, each.steps) for each in ours.trials] == [(each.status, each.steps) for each in theirs.trials]
        for shown in ("hyper", "scalars"):
            found, expected = ({**(s.hyper if shown == "hyper" else s.scalars())} for s in (ours, theirs))
            torch.testing.assert_close(found, expected, rtol=300 * tolerance, atol=tolerance)


QUICK = ("multistep", "hdm", "oho-default", "averaged", "tuned-loss", "drifting-oho", "diverging-searches")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LINES])
def test_members_are_the_separate_trainings(name, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        compare(name, tmp_path, double=True, tolerance=1e-10)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_members_are_the_separate_trainings_in_single_precision(name, tmp_path):
    compare(name, tmp_path, double=False, tolerance=2e-5)


def make_together(specs, folder, **options):
    return run_together(specs, folder, data_root=None, open_sink=lambda *a: NoSink(), **options)


def assert_same(specs, folder, alone):
    """Records of runs made together against those of runs made alone: the same, but for rounding and seconds."""
    for spec in specs:
        ours, theirs = (read_run(root / run_id(spec)) for root in (folder, alone))
        assert ours.outcome.status is theirs.outcome.status
        assert (ours.outcome.steps, ours.outcome.shared_by) == (theirs.outcome.steps, len(specs))
        assert len(ours.records) == len(theirs.records)
        for found, expected in zip(ours.records, theirs.records, strict=True):
            assert found.keys() == expected.keys()
            for name in found.keys() - {"counted_seconds", "wall_seconds", "scalars", "crc"}:
                torch.testing.assert_close(_plain(found[name]), _plain(expected[name]), rtol=2e-4, atol=1e-7, msg=name)


def _plain(value):
    if isinstance(value, str | None):
        return 0.0
    return value if not isinstance(value, dict) else {key: torch.tensor(item) for key, item in value.items()}


SHOCKS = (
    "shocks=[{events: [{epoch: 0.5, shift_labels: 1}, {epoch: 1.5, set: {lr: 0.2}}]},"
    " {events: [{epoch: 1, label_noise: 0.5}]}]"
)


@pytest.fixture(scope="module")
def shocked(tmp_path_factory):
    """Specs of which one diverges and others have shocks, and a folder with their runs made alone."""
    folder = tmp_path_factory.mktemp("alone")
    overrides = [*SMALL, "budget.steps=40", "evaluations=4", SHOCKS, "methods.0.lr=0.1"]
    specs = list(experiment(folder, "oho-global", overrides=overrides).specs)
    specs.append({**specs[0], "seed": 5, "method": specs[0]["method"] | {"lr": 3e38}})
    for spec in specs:
        run_one(spec, folder)
    return specs, folder


def test_records_of_runs_made_together_are_those_of_separate_ones(shocked, tmp_path):
    """With shocks, and with one that diverges and leaves the others."""
    specs, alone = shocked
    outcomes = make_together(specs, tmp_path)
    assert [outcome.status for outcome in outcomes] == [Status.BUDGET_REACHED] * 3 + [Status.DIVERGED]
    assert_same(specs, tmp_path, alone)


def test_a_schedule_over_the_budget_has_the_same_rates_in_a_batch(tmp_path):
    """Bit for bit, at a last step that ends behind the budget too."""
    (spec,) = experiment(tmp_path, "cosine", seeds=(0,), overrides=[*SMALL, "budget.epochs=1.3", "evaluations=7"]).specs
    specs = [spec, {**spec, "seed": 5}]
    make_together(specs, tmp_path)
    run_one(specs[1], tmp_path / "alone")
    ours, theirs = (read_run(root / run_id(specs[1])).records for root in (tmp_path, tmp_path / "alone"))
    assert [record.get("hyper") for record in ours] == [record.get("hyper") for record in theirs]


def test_a_stopped_batch_goes_on_together_or_alone(shocked, tmp_path):
    specs, alone = shocked
    specs = specs[:3]
    with pytest.raises(Interrupted):
        make_together(specs, tmp_path, stopper=StoppedAfter(8))
    runs = [read_run(tmp_path / run_id(spec)) for spec in specs]
    assert {run.outcome.status for run in runs} == {Status.INTERRUPTED}
    assert {0 < run.outcome.steps < 40 for run in runs} == {True}
    outcome = run_one(specs[0], tmp_path)
    assert (outcome.status, outcome.shared_by) == (Status.BUDGET_REACHED, 3)
    make_together(specs[1:], tmp_path)
    assert_same(specs, tmp_path, alone)


class SlowTracker:
    """A tracker that takes its time, and keeps what it is told."""

    def __init__(self, told):
        self.told = told

    def record(self, record):
        time.sleep(0.01)
        self.told.append((record["kind"], record["step"]))

    def caught_up(self):
        self.told.append("caught up")

    def close(self, outcome):
        self.told.append(outcome.status)


def test_slow_trackers_are_told_all_in_order_before_the_command_goes_on(shocked, tmp_path):
    """Also of a batch that was stopped and goes on: of what its runs recorded before, once."""
    specs = shocked[0][:3]
    told = {run_id(spec): [] for spec in specs}

    def make(**options):
        return run_together(
            specs, tmp_path, data_root=None, open_sink=lambda name, spec, folder: SlowTracker(told[name]), **options
        )

    with pytest.raises(Interrupted):
        make(stopper=StoppedAfter(8))
    kept = {name: [(each["kind"], each["step"]) for each in read_run(tmp_path / name).records] for name in told}
    assert told == {name: ["caught up", *kept[name], read_run(tmp_path / name).outcome.status] for name in told}
    for each in told.values():
        each.clear()
    make()
    for name, heard in told.items():
        run = read_run(tmp_path / name)
        written = [(each["kind"], each["step"]) for each in run.records]
        assert [each for each in heard if isinstance(each, tuple)] == written
        assert heard.index("caught up") == len(kept[name])
        assert heard[-1] is run.outcome.status


def test_a_batch_that_fails_leaves_its_runs_to_be_made_alone(shocked, tmp_path, monkeypatch, caplog):
    specs, _ = shocked

    class Broken(population.Batch):
        def advance(self):
            raise RuntimeError("no such luck")

    monkeypatch.setattr(population, "Batch", Broken)
    assert make_together(specs[:2], tmp_path) == [None, None]
    assert "a batch of 2 runs ended early, they continue alone (RuntimeError: no such luck)" in caplog.text
    assert run_one(specs[0], tmp_path).status is Status.BUDGET_REACHED


def test_a_member_whose_end_cannot_be_written_costs_the_others_nothing(shocked, tmp_path, monkeypatch):
    specs, _ = shocked
    lost = tmp_path / run_id(specs[0])
    write = RunWriter.close

    def refuse(writer, outcome=None):
        write(writer)
        raise StorageError(f"{writer.folder}: cannot be written")

    monkeypatch.setattr(RunWriter, "close", lambda writer, *end: (refuse if writer.folder == lost else write)(writer, *end))
    with pytest.raises(StorageError, match=run_id(specs[0])):
        make_together(specs[:3], tmp_path)
    assert read_run(lost).outcome is None
    others = [read_run(tmp_path / run_id(spec)) for spec in specs[1:3]]
    assert [run.outcome.status for run in others] == [Status.BUDGET_REACHED] * 2


def test_a_folder_that_cannot_be_opened_ends_the_command_before_any_run_begins(shocked, tmp_path):
    specs, _ = shocked
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / run_id(specs[1])).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        make_together(specs[:3], tmp_path)
    assert [read_run(tmp_path / run_id(spec)).records for spec in (specs[0], specs[2])] == [(), ()]


@pytest.mark.parametrize(
    ("method", "overrides", "why"),
    [
        ("fixed", ["budget={seconds: 1}"], "its budget is in seconds"),
        ("fixed", ["budget={plain_steps: 100}"], "its budget is in seconds"),
    ],
)
def test_what_is_trained_alone_says_why(method, overrides, why, tmp_path):
    with pytest.raises(CannotStackError, match=why):
        batch_key(experiment(tmp_path, method, overrides=overrides).specs[0])


def test_runs_that_differ_in_more_than_values_have_other_batches(tmp_path):
    overrides = ["methods=[{name: fixed}, {name: cosine, lr: 1}, {name: fixed, optimizer: adam, label: a}, "
                 "{name: oho-global}, {name: oho-global, meta_rate: 1, label: b}, "
                 "{name: oho-global, discount: 0.5, label: c}]"]  # fmt: skip
    fixed, cosine, adam, first, second, third = map(batch_key, experiment(tmp_path, "fixed", overrides=overrides).specs)
    assert fixed == cosine
    assert first == second
    assert fixed != adam
    assert first != third


@pytest.mark.parametrize(
    ("changes", "layer", "why"),
    [
        ({"noisy": True}, nn.Identity(), "its network draws noise"),
        ({}, BatchNorm(1), "its network has batch norm"),
        ({}, nn.Conv1d(1, 1, 1), "its network has convolutions"),
        ({}, nn.Linear(1, 1).requires_grad_(False), "its network has frozen parameters"),
    ],
)
def test_networks_that_cannot_be_stacked_are_trained_alone(changes, layer, why, tmp_path):
    task, _ = task_of(experiment(tmp_path, "fixed").specs[0], torch.device("cpu"), None)
    assert why in why_not(replace(task, **changes), layer)
    assert why_not(task, nn.Linear(1, 1)) is None


def test_records_of_runs_in_a_world_that_drifts(tmp_path):
    overrides = [*SMALL, DRIFT, "budget.steps=24", "evaluations=2", "methods.0.average=4", "methods.0.lr=0.1"]
    specs = experiment(tmp_path, "fixed", overrides=overrides).specs[:2]
    for spec in specs:
        run_one(spec, tmp_path / "alone")
    make_together(specs, tmp_path / "together")
    assert_same(specs, tmp_path / "together", tmp_path / "alone")


def test_donors_that_are_trained_together_find_the_same_schedules(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        (*_, alone), (entry, method, _) = (trainings(LINES["transplant"], tmp_path, True, []) for _ in range(2))
        alone = alone()
        entry.batching.prepare([method] * 2, [state.task for state in alone], [0, 1])
        assert set(method._found) == {0, 1}
        for state in alone:
            torch.testing.assert_close(method._found[state.seed], state.schedule, rtol=1e-10, atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_searches_have_a_batch_if_trials_at_different_steps_do(tmp_path):
    overrides = ["methods=[{name: random-search, over: {name: fixed}}, {name: tpe-search, over: {name: cosine}}, "
                 "{name: random-search, over: {name: adam}}, {name: random-search, over: {name: hdm}}]"]  # fmt: skip
    *specs, last = experiment(tmp_path, "fixed", overrides=overrides).specs
    first, second, third = map(batch_key, specs)
    assert first == second != third
    with pytest.raises(CannotStackError, match="repeats has no batch of trainings at different steps"):
        batch_key(last)
