"""Shocks: each kind does what it says, to every method, at its epoch, and leaves the run before it as it was."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import KINDS, METHOD_LINES, Ticks, experiment, run_one, write_config
from torch import nn

from bench.experiment.expansion import load_experiment
from bench.experiment.shocks import Event, change_data, corrupt, rotated
from bench.experiment.spec import method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Kick, Ledger, judged_anew
from bench.protocol.batch_norm import BatchNorm
from bench.protocol.streams import stream
from bench.records import RunWriter, Status, read_run, run_id
from bench.run.loop import Loop
from bench.tracking.wandb_sink import NoSink

CHANGEABLE = [
    method if method in KINDS else pytest.param(method, marks=pytest.mark.slow)
    for method in sorted(set(METHOD_LINES) - {"transplant"})
]


def shocked(folder, method, *events):
    """The spec of a method's run on digits, ten steps an epoch, and that of its twin without the shock."""
    path = folder / "shocked.yaml"
    text = "\n".join(f"      - {event}" for event in events)
    path.write_text(write_config(folder, method).read_text() + f"shocks:\n  - events:\n{text}\n")
    twin, spec = load_experiment(path).specs
    return spec, twin


def records_of(folder, spec):
    assert run_one(spec, folder).status is Status.BUDGET_REACHED
    return read_run(folder / run_id(spec))


def between(run, first, last):
    """What was recorded of those steps, without the clocks."""
    clocks = ("counted_seconds", "wall_seconds")
    found = [record for record in run.records if first <= record["step"] < last and record["kind"] != "shock"]
    return [{key: value for key, value in record.items() if key not in clocks} for record in found]


@pytest.mark.parametrize("method", CHANGEABLE)
def test_a_kick_changes_every_method_from_its_epoch_on(method, tmp_path):
    """In the middle of an epoch: at the end of one, a trial may have ended."""
    without_lr = ("prodigy", "dog", "ldog", "mechanic", "gp-search")  # the last one searches over Prodigy
    name = "lr" if method not in without_lr else "weight_decay"
    value = 0.05 if name == "lr" else 0.5
    spec, twin = shocked(tmp_path, method, f"{{epoch: 3.5, set: {{{name}: {value}}}}}")
    run, other = records_of(tmp_path, spec), records_of(tmp_path, twin)
    told = [record["event"] for record in run.records if record["kind"] == "shock"]
    assert told == [f"{name} set to {value:g} at epoch 3.5"]
    assert between(run, 0, 35) == between(other, 0, 35)
    assert between(run, 36, 61) != between(other, 36, 61)


@pytest.mark.parametrize("method", ["fixed", "oho-global", "oho-full", "oho-published", "hypergradient-descent", "hdm"])
def test_a_kick_is_seen_at_once(method, tmp_path):
    spec, _ = shocked(tmp_path, method, "{epoch: 3, scale: {lr: 0.5}}")
    run = records_of(tmp_path, spec)
    before, after = [r["hyper"]["lr"] for r in run.evaluations if r["step"] == 30]
    assert after == pytest.approx([0.5 * value for value in before])


def test_oho_keeps_within_its_ceiling(tmp_path):
    spec, _ = shocked(tmp_path, "oho-global", "{epoch: 3, set: {weight_decay: 0.1}}")
    after = [r for r in records_of(tmp_path, spec).evaluations if r["step"] == 30][-1]
    assert after["hyper"]["weight_decay"] == [pytest.approx(2e-4)]


def test_a_schedule_goes_on_from_what_it_multiplies(tmp_path):
    spec, twin = shocked(tmp_path, "cosine", "{epoch: 3, scale: {lr: 2}}")
    run, other = (records_of(tmp_path, each) for each in (spec, twin))
    assert run.evaluations[-1]["hyper"]["lr"][0] == pytest.approx(2 * other.evaluations[-1]["hyper"]["lr"][0])


@pytest.mark.parametrize("method", ["fixed", "oho-global", "random-search", "population"])
def test_a_changed_world_judges_what_was_selected_anew(method, tmp_path):
    """After the labels have moved, the model selected before is a bad one, and a later one takes its place."""
    spec, _ = shocked(tmp_path, method, "{epoch: 3, shift_labels: 1}")
    spec = {**spec, "budget": {"unit": "epochs", "amount": 20}}
    spec["method"] |= {"lr": 0.5} if "over" not in spec["method"] else {}
    run = records_of(tmp_path, spec)
    at_shock = [record for record in run.incumbents if record["step"] == 30]
    before = [record for record in run.incumbents if record["step"] < 30][-1]
    assert at_shock[-1]["validation_loss"] > before["validation_loss"]
    losses = [record["validation_loss"] for record in run.incumbents if record["step"] > 30]
    assert losses == sorted(losses, reverse=True)
    assert run.outcome.final["incumbent_test_loss"] != before["test_loss"]


def test_a_changed_world_renews_the_statistics_that_the_incumbent_is_tested_with(tmp_path):
    spec, _ = shocked(tmp_path, "fixed", "{epoch: 1, rotate: 90}")
    task, test = task_of(spec, torch.device("cpu"), None)
    task = replace(task, make_model=lambda: nn.Sequential(nn.Linear(64, 8), BatchNorm(8), nn.Linear(8, 10)))
    writer = RunWriter(tmp_path, spec)
    loop = Loop(
        method_of(spec), task, test=test, spec=spec, ledger=Ledger(), writer=writer, sink=NoSink(),
        progress=lambda used, state: None, environment={},
    )  # fmt: skip
    loop.start(None)
    while loop.events:
        loop.advance(loop.used())
    writer.close()
    model = task.model(0)
    model.load_state_dict(loop.state.incumbent.weights)
    (anew,) = task.evaluate(model, loop.test)
    assert loop.selected is loop.state.incumbent
    assert loop.result["incumbent_test_loss"] == pytest.approx(anew.loss, abs=1e-6)
    lost = {name: math.nan * value for name, value in model.state_dict().items()}
    diverged = replace(loop.state.incumbent, weights=lost)
    assert judged_anew(loop.state, diverged).validation_loss == math.inf


def test_noise_corrupts_training_labels_alone(tmp_path):
    task, test = task_of(experiment(tmp_path, "fixed").specs[0], torch.device("cpu"), None)
    before = [split.targets.clone() for split in (task.train, task.validation, test)]
    change_data(Event(epoch=1, label_noise=0.25), task, test, seed=3)
    after = [split.targets for split in (task.train, task.validation, test)]
    changed = [float((old != new).double().mean()) for old, new in zip(before, after, strict=True)]
    assert changed == [pytest.approx(0.25, abs=1e-3), 0.0, 0.0]


def test_corrupt_draws_every_other_label_alike():
    targets = torch.zeros(90_000, dtype=torch.int64)
    corrupt(targets, 1.0, 10, stream(0, "test"))
    counts = torch.bincount(targets, minlength=10)
    assert counts[0] == 0
    assert (counts[1:].double() - 10_000).abs().max() < 500  # five standard deviations


def test_rotation_by_right_angles_is_exact():
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(rotated(images, 90), torch.rot90(images, 1, (2, 3)), atol=1e-6, rtol=0)
    flat, turned = images.flatten(1), torch.rot90(images, 2, (2, 3)).flatten(1)
    torch.testing.assert_close(rotated(flat, 180), turned, atol=1e-6, rtol=0)
    small = (255 * images).to(torch.uint8)
    assert torch.equal(rotated(small, 90), torch.rot90(small, 1, (2, 3)))


def test_a_shocked_run_does_not_spoil_the_data_of_the_next(tmp_path):
    """Data sets are read once a process."""
    spec, twin = shocked(tmp_path, "fixed", "{epoch: 1, shift_labels: 3}")
    clean = records_of(tmp_path / "a", twin).outcome.final["test_loss"]
    records_of(tmp_path / "b", spec)
    assert records_of(tmp_path / "c", twin).outcome.final["test_loss"] == clean


def test_two_events_at_one_epoch_and_a_timed_budget(tmp_path):
    events = ("{epoch: 0, scale: {lr: 2}}", "{epoch: 2, set: {lr: 0.3}}", "{epoch: 2, rotate: 45}")
    spec, _ = shocked(tmp_path, "fixed", *events)
    spec = {**spec, "budget": {"unit": "seconds", "amount": 0.3}}
    run = records_of(tmp_path, spec)
    assert [(r["step"], r["event"]) for r in run.records if r["kind"] == "shock"] == [
        (0, "lr times 2 at epoch 0"), (20, "lr set to 0.3 at epoch 2"), (20, "inputs rotated by 45° at epoch 2"),
    ]  # fmt: skip


MISTAKES = {
    "{epoch: 2}": r"events.0: an event needs one of set, scale, shift_labels, rotate and label_noise",
    "{epoch: 2, set: {momentum: 0.9}}": r"method 'Fixed' has no hyperparameter 'momentum'; it has: lr, weight_decay",
    "{epoch: 2, set: {lr: 0}}": r"lr cannot be set to 0 in 'Fixed': a number above 0 is expected",
    "{epoch: 2, set: {lr: -1}}": r"set.lr: a number of at least 0 is expected \(given -1",
    "{epoch: 2, scale: {lr: 2}, set: {lr: 1}}": r"lr: use set or scale, not both",
    "{epoch: 2, shift: 2}": r"unknown key 'shocks.0.events.0.shift'; allowed: epoch, set, scale",
    "{epoch: 2, label_noise: 2}": r"label_noise: a number of at most 1 is expected \(given 2",
    "{set: {lr: 1}}": r"key 'shocks.0.events.0.epoch' is missing",
}


@pytest.mark.parametrize("event", MISTAKES)
def test_a_wrong_shock_is_one_line(event, tmp_path):
    with pytest.raises(ConfigError, match=MISTAKES[event]) as error:
        shocked(tmp_path, "fixed", event)
    assert "\n" not in str(error.value)


SCALED = {
    "{name: cosine, optimizer: adamw}": {
        "{epoch: 1, scale: {beta2: 1.25}}": r":13:33: beta2 cannot be scaled by 1.25 in 'Cosine, AdamW': "
        r"a number below 1 is expected, and 0.999 becomes 1.24875$",
        "{epoch: 1, scale: {beta2: 0.5}}, {epoch: 2, scale: {beta2: 2}}": None,
        "{epoch: 1, set: {beta2: 0.5}}, {epoch: 2, scale: {beta2: 2}}": "0.5 becomes 1$",
    },
    "{name: cosine, optimizer: {name: adamw, beta2: null}}": {
        "{epoch: 1, scale: {beta2: 1.05}}": "below 1 is expected, and 0.9999 from space 'fair' becomes 1.0499$",
        "{epoch: 1, scale: {beta2: 1.00005}}": None,
    },
    "{name: random-search, over: {name: cosine, optimizer: adamw}}": {  # the second kick may hit a trial that began later
        "{epoch: 1, scale: {beta2: 0.5}}, {epoch: 2, scale: {beta2: 2}}": "0.999 becomes 1.998$",
    },
    "{name: step, step_size: 100}": {
        "{epoch: 1, scale: {step_size: 0.125}}": "'Step': a whole number is expected, and 100 becomes 12.5$",
        "{epoch: 1, scale: {step_size: 0.001}}": "a whole number is expected, and 100 becomes 0.1$",
        "{epoch: 1, scale: {step_size: 0.29}}": None,
    },
    "{name: step}": {
        "{epoch: 1, scale: {step_size: 0.5}}": "expected, and 1399 from space 'fair' becomes 699.5$",
        "{epoch: 1, scale: {step_size: 2}}": None,
    },
    "{name: oho-default, optimizer: momentum}": {"{epoch: 1, scale: {momentum: 3}}": None},  # keeps within its bounds
}


@pytest.mark.parametrize(("method", "events"), [(method, events) for method in SCALED for events in SCALED[method]])
def test_a_factor_is_refused_where_the_optimizer_does_not_take_what_it_makes(method, events, tmp_path):
    path, told = tmp_path / "scaled.yaml", SCALED[method][events]
    text = write_config(tmp_path, "fixed").read_text().replace(METHOD_LINES["fixed"], method)
    path.write_text(f"{text}shocks:\n  - events: [{events}]\n")
    if told is None:
        load_experiment(path)
        return
    with pytest.raises(ConfigError, match=told) as error:
        load_experiment(path)
    assert "\n" not in str(error.value)


def test_a_whole_number_that_is_scaled_stays_one():
    kick = Kick("step_size", factor=0.29)
    assert (kick.of(100), type(kick.of(100))) == (29, int)
    assert kick.of(100.0) == 0.29 * 100.0


LABELS = {
    "label: ''": r"shocks.0.label: one line of 1 to 200 printable characters, .* is expected \(given ''\)",
    "label: '   '": r"shocks.0.label: .*not only spaces, is expected",
    "label: 7": r"shocks.0.label: one line .*\(given 7\)",
    "label: A}\n  - {events: [{epoch: 1, rotate: 9}], label: A": r":14:5: two shocks are called 'A'; give one",
    "label: A}\n  - {events: [{epoch: 2, rotate: 9}], label: B": r":14:5: 'B' differs from 'A' in its label alone",
}


@pytest.mark.parametrize("rest", LABELS)
def test_shocks_have_labels_that_figures_can_tell_apart(rest, tmp_path):
    path = tmp_path / "shocked.yaml"
    text = write_config(tmp_path, "fixed").read_text()
    path.write_text(f"{text}shocks:\n  - {{events: [{{epoch: 2, rotate: 9}}], {rest}}}\n")
    with pytest.raises(ConfigError, match=LABELS[rest]):
        load_experiment(path)


@pytest.mark.parametrize(("budget", "given"), [("epochs: 6", "6 epochs"), ("steps: 60", "60 steps")])
def test_a_shock_after_the_end_is_refused(budget, given, tmp_path):
    """Digits have ten steps an epoch."""
    path = tmp_path / "late.yaml"
    text = write_config(tmp_path, "fixed").read_text().replace("steps: 60", budget) + "shocks:\n"
    path.write_text(text + "  - events: [{epoch: 6, rotate: 90}]\n")
    told = rf"late.yaml:13:15: epoch: must be within the budget \(given 6 \(budget: {given}, and an epoch has 10 steps\)"
    with pytest.raises(ConfigError, match=told):
        load_experiment(path)
    path.write_text(text + "  - events: [{epoch: 5.9, rotate: 90}]\n")
    load_experiment(path)


def test_a_shock_that_a_timed_run_does_not_live_to_see_is_told(tmp_path, caplog):
    spec, _ = shocked(tmp_path, "fixed", "{epoch: 1, rotate: 90}")
    spec = {**spec, "budget": {"unit": "seconds", "amount": 0.004}}
    run_one(spec, tmp_path, now=Ticks())
    assert f"{tmp_path / run_id(spec)}: ended before inputs rotated by 90° at epoch 1" in caplog.messages
