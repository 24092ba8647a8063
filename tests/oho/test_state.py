"""An optimizer goes on from its state, and what fails leaves that as it was."""

import io

import pytest
import torch
from small_trainings import RULES, loss_of, make_problem

import oho


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_state_dict_continues_bit_for_bit(rule):
    model, batches = make_problem()
    options = {"sets": "full", "meta": oho.MetaAdam(0.01), "discount": 0.99}

    def steps(model, optimizer, part):
        for batch in part:
            optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))

    optimizer = oho.OHO(model.parameters(), RULES[rule], **options)
    steps(model, optimizer, batches[:8])
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    steps(model, optimizer, batches[8:16])
    again, _ = make_problem(seed=5)
    resumed = oho.OHO(again.parameters(), RULES[rule], **options)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    steps(again, resumed, batches[8:16])
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in optimizer.hyper.items():
        assert torch.equal(value, resumed.hyper[name])


def test_a_state_that_does_not_fit_changes_nothing():
    model, batches = make_problem()
    rule = RULES["momentum"]
    optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.01))
    for batch in batches[:3]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
    saved = optimizer.state_dict()
    noise = {"generator": torch.Generator().manual_seed(0)}
    others = {
        "memory": oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(0.1)),
        "generators": oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.1), **noise),
        "hyper": oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.1), sets="full"),
        "slots": oho.OHO(model.parameters(), oho.SGD(0.05, 1e-2), meta=oho.MetaAdam(0.1)),
    }
    for other in others.values():
        before = other.hyper["lr"].clone()
        with pytest.raises(ValueError, match="state: "):
            other.load_state_dict(saved)
        assert torch.equal(other.hyper["lr"], before)
        assert other.steps == 0
    for key in saved:
        with pytest.raises(ValueError, match=f"no {key}"):
            optimizer.load_state_dict({k: v for k, v in saved.items() if k != key})


def test_a_closure_that_raises_changes_nothing():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), discount=0.5, meta=oho.MetaSGD(0.0))
    optimizer.step(lambda: loss_of(model, batches[0]))
    before = optimizer.state_dict()["influence"]["theta"]

    with pytest.raises(RuntimeError, match="luck"):
        optimizer.step(unlucky)
    assert torch.equal(optimizer.state_dict()["influence"]["theta"], before)
    assert optimizer.steps == 1


@pytest.mark.parametrize("average", [None, oho.Recent(0.3)], ids=["none", "recent"])
def test_a_step_that_is_made_again_is_made_once(average):
    """A closure raises after plain steps, over which the average's influence has to be moved, and the step is repeated."""
    options = {"meta": oho.MetaAdam(0.01), "average": average, "tuned_steps": oho.Windows(3, 2, 6)}

    def trained(broken):
        model, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), RULES["momentum"], **options)
        for number, batch in enumerate(batches[:10]):
            if number in broken:
                with pytest.raises(RuntimeError, match="luck"):
                    optimizer.step(unlucky, lambda: loss_of(model, batches[-1]))
                optimizer.load_state_dict(optimizer.state_dict())  # nor is a state that is saved now another one
            optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
        return optimizer.state_dict()

    once, again = trained([]), trained([1, 6, 7])
    for kind in ("influence", "averaged_influence", "hyper"):
        assert all(torch.equal(value, again[kind][name]) for name, value in once.get(kind, {}).items()), kind


def unlucky():
    raise RuntimeError("out of luck")


def test_a_validation_loss_that_raises_leaves_a_step_that_was_made():
    model, batches = make_problem()
    phases = []
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), reset_every=2, on_phase=phases.append)
    for number in range(2):
        with pytest.raises(RuntimeError, match="luck"):
            optimizer.step(lambda b=batches[number]: loss_of(model, b), unlucky)
        assert (optimizer.steps, phases[-1]) == (number + 1, "train")
    assert float(optimizer.influence_norm()["lr"]) == 0  # the second step was due to forget
