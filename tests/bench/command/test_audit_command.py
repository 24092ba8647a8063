"""`oho-bench audit` on real runs."""

import math
import re
import shutil
from functools import partial

import pytest
from helpers import experiment, rewrite_lines, run_one, write_config

from bench.command.audit import audit_run
from bench.experiment.expansion import load_experiment
from bench.records import RecordError, run_id


def audited(folder, method, *overrides, **options):
    """An audit of the last ten steps of thirty."""
    spec = experiment(folder, method, overrides=["budget.steps=30", *overrides]).specs[0]
    run_one(spec, folder)
    options = {"steps": 10, "at": None, "data_root": None, **options}
    return audit_run(folder / run_id(spec), **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 60 steps."""
    folder = tmp_path_factory.mktemp("made")
    spec = experiment(folder, "oho-global").specs[0]
    run_one(spec, folder)
    return folder / run_id(spec)


@pytest.fixture
def run(made, tmp_path):
    """A copy of that run."""
    return shutil.copytree(made, tmp_path / made.name)


def errors(text):
    return [float(line.split()[-1]) for line in text.splitlines()[2:-1]]


@pytest.mark.parametrize("method", [pytest.param("oho-global", marks=pytest.mark.slow), "oho-layerwise"])
def test_an_exact_run_is_exact_to_the_rounding_of_float32(method, tmp_path):
    text = audited(tmp_path, method)
    assert "after step 30, the last 10 steps" in text
    assert "a product of the twin against central differences of gradients: right, relative error" in text
    found = errors(text)
    assert len(found) == (8 if method == "oho-layerwise" else 2)
    assert max(found) < 1e-2  # a set whose terms cancel has fewer digits than float32
    rows = [line.split() for line in text.splitlines()[2:-1]]
    for name in ("lr", "weight_decay"):
        pairs = [(float(row[-3]), float(row[-2])) for row in rows if row[0] == name]
        assert math.dist(*zip(*pairs, strict=True)) < 1e-4 * math.hypot(*(exact for _, exact in pairs))


@pytest.mark.parametrize("method", [pytest.param("oho-full", marks=pytest.mark.slow), "oho-default"])
def test_a_run_of_another_optimizer_with_all_that_it_tunes(method, tmp_path):
    options = ["methods.0.optimizer={name: momentum, nesterov: true}", "methods.0.tune=[lr, weight_decay, momentum]"]
    small = ["methods.0.lr=0.01", "methods.0.weight_decay=1e-4"]
    rates = ["methods.0.meta_rate=1e-6"] if method == "oho-full" else []
    text = audited(tmp_path, method, *options, *small, *rates, steps=10, at=20)
    assert text.startswith(f"{'Full' if method == 'oho-full' else 'Default'} OHO, momentum on digits, seed 0: ")
    rows = [line.split() for line in text.splitlines()[2:-1]]
    for name in ("lr", "weight_decay", "momentum"):
        pairs = [(float(row[-3]), float(row[-2])) for row in rows if row[0] == name]
        assert math.dist(*zip(*pairs, strict=True)) < 1e-4 * math.hypot(*(exact for _, exact in pairs))


@pytest.mark.slow
def test_a_run_with_an_average_is_exact_and_its_products_of_a_part_are_shown_not_to_be(tmp_path):
    averaged = ["methods.0.average=30", "methods.0.update_every=4", "methods.0.present_share=0.5"]
    assert max(errors(audited(tmp_path, "oho-default", *averaged))) < 1e-4
    found = errors(audited(tmp_path, "oho-default", *averaged, "methods.0.curvature_fraction=0.25"))
    assert 1e-3 < max(found) < 1


def test_validation_gradients_in_bfloat16_are_shown_with_their_error(tmp_path):
    text = audited(tmp_path, "oho-default", "methods.0.validation_precision=bfloat16")
    assert text.startswith("Default OHO, bfloat16 validation on digits")
    assert 1e-4 < max(errors(text)) < 0.1


@pytest.mark.slow
def test_the_collapsed_influence_is_shown_to_be_biased(tmp_path):
    assert max(errors(audited(tmp_path, "oho-full", "methods.0.influence=collapsed", steps=30))) > 0.1


def test_the_published_recursion_is_shown_to_be_no_derivative(tmp_path):
    text = audited(tmp_path, "oho-published", "methods.0.lr=0.05", "methods.0.weight_decay=1e-4", steps=30)
    decay = next(line for line in text.splitlines() if line.startswith("weight_decay"))
    assert float(decay.split()[-1]) > 0.3


def test_an_earlier_step(made):
    assert "after step 30, the last 10 steps" in audit_run(made, steps=10, at=30, data_root=None)


def test_a_run_with_a_shock_is_audited_up_to_its_first_event(tmp_path):
    path = write_config(tmp_path, "oho-global")
    path.write_text(path.read_text() + "shocks:\n  - events: [{epoch: 1, rotate: 90}, {epoch: 2, set: {lr: 0.3}}]\n")
    _, spec = load_experiment(path, overrides=["budget.steps=25"]).specs
    run_one(spec, tmp_path)
    text = audit_run(tmp_path / run_id(spec), steps=8, at=None, data_root=None)
    assert "after step 10, the last 8 steps" in text
    assert max(errors(text)) < 1e-2
    said = "--at 11: after step 10 the run has an event, inputs rotated by 90° at epoch 1, which an audit does not repeat"
    with pytest.raises(RecordError, match=re.escape(f"{said}; allowed are --at up to 10")):
        audit_run(tmp_path / run_id(spec), steps=8, at=11, data_root=None)


def double_lr(records, at):
    """In the evaluations at these steps."""
    for record in records:
        if record["kind"] == "evaluation" and record["step"] in at:
            record["hyper"]["lr"] = [2 * record["hyper"]["lr"][0]]


def test_the_training_is_repeated_up_to_the_audited_steps(run):
    """A record just before them that the training does not repeat is seen, though it lies beyond many validations."""
    rewrite_lines(run / "records.jsonl", partial(double_lr, at=(50,)))
    assert "after step 40" in audit_run(run, steps=5, at=40, data_root=None)
    with pytest.raises(RecordError, match="at step 50, the record has"):
        audit_run(run, steps=10, at=None, data_root=None)


def test_a_training_that_is_not_repeated_is_not_audited(run):
    rewrite_lines(run / "records.jsonl", partial(double_lr, at=range(100)))
    with pytest.raises(RecordError, match="not those of the run"):
        audit_run(run, steps=20, at=None, data_root=None)
    path = run / "spec.json"
    written = path.read_text()
    path.write_text(written.replace('"batch_size": 100', '"batch_size": []'))
    with pytest.raises(RecordError, match=r"spec\.json:1:1: changed since the run was made: its hash is not"):
        audit_run(run, steps=20, at=None, data_root=None)
    path.write_text(written)
    (run / "outcome.json").unlink()
    with pytest.raises(RecordError, match="has not ended"):
        audit_run(run, steps=20, at=None, data_root=None)


def test_a_user_mistake_is_one_line(made, tmp_path):
    for steps, at, words in (
        (99, None, "the run made 60"),
        (20, 0, "allowed are"),
        (0, None, "from 1"),
        (20, 300, "the run made 60"),
    ):
        with pytest.raises(RecordError, match=re.escape(words)):
            audit_run(made, steps=steps, at=at, data_root=None)
    with pytest.raises(RecordError, match="oho-"):
        audited(tmp_path, "fixed")
    with pytest.raises(RecordError, match="RESULTS/ID"):
        audit_run(tmp_path, steps=1, at=None, data_root=None)
    with pytest.raises(RecordError, match="layer-wise"):
        audited(tmp_path, "oho-published", "methods.0.variant=layerwise", "methods.0.groups=2")


def test_a_record_of_what_was_not_finite_is_not_what_is_trained_again(run):
    def lose(records):
        for record in records:
            if record["kind"] == "evaluation" and record["step"] == 50:
                record["hyper"]["lr"] = [None]

    rewrite_lines(run / "records.jsonl", lose)
    with pytest.raises(RecordError, match=r"trained again, lr is .* at step 50, the record has nan"):
        audit_run(run, steps=10, at=None, data_root=None)
