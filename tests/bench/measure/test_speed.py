"""What `make speed` compares with is the published recursion, and its table can be read."""

import copy
import re
import sys

import pytest
import torch

import oho
from bench.measure import speed, steps
from bench.measure.published_step import PublishedStep


def test_the_published_step_is_the_published_recursion():
    """Twelve steps in float32 beside `oho.PublishedOHO`; sums are taken in another order."""
    problem = speed.Problem(torch.device("cpu"))
    twin = copy.deepcopy(problem.model)
    ours = oho.PublishedOHO(twin.parameters(), lr=0.1, weight_decay=1e-5, meta_lr=1e-6)
    published = PublishedStep(problem.model, lr=0.1, weight_decay=1e-5)
    for index in range(12):
        theirs = published.step(
            lambda model, i=index: problem.loss(0, i, model), lambda model, i=index: problem.loss(1, i, model)
        )
        mine = ours.step(lambda i=index: problem.loss(0, i, twin), lambda i=index: problem.loss(1, i, twin))
        assert theirs == pytest.approx(float(mine), rel=1e-5)
    assert published.hyper["lr"] != 0.1
    assert published.hyper["lr"] - 0.1 == pytest.approx(float(ours.hyper["lr"]) - 0.1, rel=1e-2)
    for name, norm in ours.influence_norm().items():
        assert float(published.model.tangents[name].norm()) == pytest.approx(float(norm), rel=1e-3)


def test_the_table_has_a_line_for_every_variant(monkeypatch):
    monkeypatch.setattr(speed, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(speed, "WARM_UP", 2)
    turns = speed.time_rounds(torch.device("cpu"), 2)
    lines = speed.table(turns, dict.fromkeys(speed.VARIANTS, 1.0))
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(speed.VARIANTS)
    assert all(turn.seconds > 0 and turn.ratio > 0 for found in turns.values() for turn in found)
    assert len([line for line in speed.comparisons(turns) if "≤" in line]) == len(speed.COMPARISONS)


def network_mebibytes():
    return 4 * sum(p.numel() for p in speed.Problem(torch.device("cpu")).model.parameters()) / 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_seen():
    """Full has its gradients, 16 rows of influence and as many of products."""
    assert speed.step_mebibytes(torch.device("cpu"), speed.VARIANTS["Full"].make, count=3) > 33 * network_mebibytes() * 0.9


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_seen_in_a_process_of_its_own():
    """Plain SGD needs its gradients at least."""
    plain, full = (float(speed.alone(torch.device("cpu"), "--memory-of", name)) for name in ("plain SGD", "Full"))
    assert plain > network_mebibytes()
    assert full - plain > 32 * network_mebibytes() * 0.9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_growth_is_seen(monkeypatch):
    kept = []
    leaking = steps.Variant("leaks", lambda problem: lambda index: kept.append(torch.ones(1 << 18)))
    monkeypatch.setitem(speed.VARIANTS, "Global", leaking)
    monkeypatch.setattr(speed, "WARM_UP", 2)
    first, last = re.findall(r"([\d.]+) MiB", speed.long_run(torch.device("cpu"), part=3))
    assert float(last) - float(first) > 50
