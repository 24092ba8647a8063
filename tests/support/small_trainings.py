"""Small trainings in float64: online by OHO, and as one differentiable function of the hyperparameters."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import oho

STEPS = 20
RULES = {
    "sgd": oho.SGD(0.1, 1e-2),
    "momentum": oho.Momentum(0.05, 1e-2, 0.8, tune=("lr", "weight_decay", "momentum")),
    "nesterov": oho.Momentum(0.05, 1e-2, 0.8, nesterov=True, tune=("lr", "weight_decay", "momentum")),
    "adam": oho.Adam(0.01, 1e-2, tune=("lr", "weight_decay", "beta1", "beta2")),
    "adamw": oho.AdamW(0.01, 1e-2, tune=("lr", "weight_decay", "beta1", "beta2")),
}
SETS = {
    "global": "global",
    "full": "full",
    "layerwise": oho.Layerwise(2),
    "own": {"0.weight": "a", "0.bias": "b", "2.weight": "a", "2.bias": "a"},
}


def make_problem(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        batches = [(torch.randn(8, 5).double(), torch.randint(3, (8,))) for _ in range(STEPS + 1)]
    return model, batches


def loss_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def online(rule, sets, *, make=make_problem, of=None, **options):
    """Trains on all batches but the last, hyperparameters held still; returns the optimizer and the parameters.

    `of`, if given, is the training loss as a function of (outputs, targets, its hyperparameters).
    """
    model, batches = make()
    optimizer = oho.OHO(model.named_parameters(), rule, sets=sets, meta=oho.MetaSGD(0.0), **options)
    for x, y in batches[:-1]:
        train = (lambda x=x, y=y: loss_of(model, (x, y))) if of is None else (lambda h, x=x, y=y: of(model(x), y, h))
        optimizer.step(train, lambda: loss_of(model, batches[-1]))
    return optimizer, [p.detach().clone() for p in model.parameters()]


def unrolled(
    rule, set_map, *, make=make_problem, shifts=None, of=None, loss=None, average=None, present_share=0, tuned_steps=None
):
    """The same training as one differentiable function of the hyperparameters; returns them and the final loss.

    `loss` are the values of the hyperparameters of the training loss `of`, by name.  With an average, the final loss is
    that of the averaged weights, or of weights so far from them to the present ones.  Steps that are not tuned move
    weights and slots by constants.
    """
    model, batches = make()
    names, like = zip(*model.named_parameters(), strict=True)
    values = {n: torch.full((set_map.count,), getattr(rule, n), dtype=torch.float64) for n in rule.names}
    for name, shift in (shifts or {}).items():
        values[name] = values[name] + shift
    values = {n: v.requires_grad_() for n, v in values.items()}
    pieces = list(zip(set_map.of_tensor, set_map.sizes, strict=True))
    hyper = {n: torch.cat([v[s].expand(size) for s, size in pieces]) for n, v in values.items()}
    own = {n: torch.as_tensor(v, dtype=torch.float64).clone().requires_grad_() for n, v in (loss or {}).items()}
    values |= own
    theta = torch.cat([p.detach().reshape(-1) for p in like]).requires_grad_()
    slots = {n: torch.zeros_like(theta) for n in (*rule.slot_names, *rule.counter_names)}

    def named(flat):
        parts = flat.split([p.numel() for p in like])
        return {n: part.view(p.shape) for n, part, p in zip(names, parts, like, strict=True)}

    mean, share = theta, 0 if average is None else average.interpolation or 0
    for step, (inputs, targets) in enumerate(batches[:-1], start=1):
        point = theta + share * (mean - theta)
        outputs = functional_call(model, named(point), inputs)
        trained = functional.cross_entropy(outputs, targets) if of is None else of(outputs, targets, own)
        (gradient,) = torch.autograd.grad(trained, point, create_graph=True)
        moved, moved_slots = rule(theta, gradient, slots, hyper)
        if tuned_steps is not None and tuned_steps.count(step) == tuned_steps.count(step - 1):
            moved = theta + (moved - theta).detach()
            moved_slots = {n: slots[n] + (slot - slots[n]).detach() for n, slot in moved_slots.items()}
        theta, slots = moved, moved_slots
        mean = theta if average is None else mean + average.weight(step) * (theta - mean)
    inputs, targets = batches[-1]
    judged = mean + present_share * (theta + share * (mean - theta) - mean)
    return values, functional.cross_entropy(functional_call(model, named(judged), inputs), targets)


def relative_error(found, exact):
    return float((found - exact).norm() / exact.norm())
