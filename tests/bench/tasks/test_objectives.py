"""Losses and metrics over whole splits: what they are, whatever the batches they are added up over."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import experiment
from torch.nn import functional

from bench.experiment.spec import task_of
from bench.protocol import Split
from bench.records.run_folder import USUAL_UNITS
from bench.tasks import CLASSIFICATION, LANGUAGE, REGRESSION

STREAM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(60, 5, generator=STREAM)
CLASSES = torch.randint(5, (60,), generator=STREAM)
TEXT_LOGITS, TEXT = torch.randn(20, 6, 7, generator=STREAM), torch.randint(7, (20, 6), generator=STREAM)
NUMBERS = torch.randn(60, 1, generator=STREAM)

CASES = {
    "classification": (
        CLASSIFICATION, LOGITS, CLASSES, functional.cross_entropy(LOGITS, CLASSES),
        (LOGITS.argmax(1) != CLASSES).float().mean(),
    ),
    "regression": (
        REGRESSION, LOGITS[:, :1], NUMBERS, ((LOGITS[:, :1] - NUMBERS) ** 2).mean(),
        ((LOGITS[:, :1] - NUMBERS) ** 2).mean().sqrt(),
    ),
    "language": (
        LANGUAGE, TEXT_LOGITS, TEXT, functional.cross_entropy(TEXT_LOGITS.flatten(0, 1), TEXT.flatten()),
        functional.cross_entropy(TEXT_LOGITS.flatten(0, 1), TEXT.flatten()) / math.log(2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("examples", [7, 1000])
@pytest.mark.parametrize("case", CASES)
def test_a_split_has_one_loss_and_metric_however_it_is_cut(case, examples, tmp_path):
    objective, outputs, targets, loss, metric = CASES[case]
    task, _ = task_of(experiment(tmp_path, "fixed").specs[0], torch.device("cpu"), None)
    task = replace(task, objective=objective, evaluation_examples=examples)
    found = task.evaluate_as_is(torch.nn.Identity(), Split(outputs, targets))
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.error == pytest.approx(float(metric), rel=1e-5)
    assert torch.equal(task.loss(outputs, targets), objective.loss(outputs, targets))


def test_a_column_of_targets_is_never_compared_with_a_row_of_outputs():
    assert REGRESSION.loss(NUMBERS, NUMBERS.flatten()) == 0


def test_older_specs_are_of_classification():
    assert CLASSIFICATION.units == USUAL_UNITS
