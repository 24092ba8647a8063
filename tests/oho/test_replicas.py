"""DistributedDataParallel: two processes with half a batch each make the steps of one process with the whole."""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_trainings import loss_of, make_problem
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import oho

STEPS = 6
RULE = oho.Adam(0.05, 1e-2)


def half(batch, part):
    """The examples of one replica of two; all for `part` None."""
    rows = slice(None) if part is None else slice(4 * part, 4 * part + 4)
    return tuple(tensor[rows] for tensor in batch)


def train(model, net, batches, part, **options):
    """Trains `net`, which is `model` or a wrapper around it; returns what replicas must share."""
    optimizer = oho.OHO(net.parameters(), RULE, sets="full", meta=oho.MetaAdam(0.05), **options)
    held = half(batches[-1], part)
    for batch in (half(batch, part) for batch in batches[:STEPS]):
        optimizer.step(lambda b=batch: loss_of(net, b), lambda: loss_of(net, held))
    return [p.detach() for p in model.parameters()] + [*optimizer.hyper.values(), *optimizer.hypergradient.values()]


def replica(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model, batches = make_problem()
    found = train(model, DistributedDataParallel(model), batches, rank)
    torch.save([torch.as_tensor(value).clone() for value in found], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_replicas_train_as_one_process(tmp_path):
    mp.spawn(replica, args=(str(tmp_path),), nprocs=2)
    model, batches = make_problem()
    whole = train(model, model, batches, None)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for one, two, exact in zip(first, second, whole, strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, torch.as_tensor(exact), rtol=1e-9, atol=1e-11)


def test_a_single_replica_trains_as_without_the_wrapper():
    """One process of one, which the same exchange serves, and a parameter that its model does not use."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found = []
        for wrap in (False, True):
            model, batches = make_problem()
            model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
            net = DistributedDataParallel(model, find_unused_parameters=True) if wrap else model
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found.append(train(model, net, batches, None, curvature="double_backward"))
        for plain, wrapped in zip(*found, strict=True):
            torch.testing.assert_close(plain, wrapped, rtol=1e-12, atol=1e-14)
        assert torch.equal(found[1][0], torch.ones(2, dtype=torch.float64))
    finally:
        dist.destroy_process_group()
