"""Members of a population: sweeps of their own, and each as its own optimizer would show and save it."""

from itertools import pairwise

import pytest
import torch

import oho
from oho.engines import pearlmutter
from oho.engines.tape import Tape
from oho.flat_parameters import flat_parameters

M, SIZES, EXAMPLES = 3, (5, 4, 3), 6
RATES = torch.tensor([[1e-3], [1e-2], [3e-2]])


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(members=M):
    """Weights and biases of tanh networks side by side, inputs, and classes."""
    drawn = torch.Generator().manual_seed(0)
    pairs = pairwise(SIZES)
    tensors = [torch.randn(members, *shape, generator=drawn) / 2 for i, o in pairs for shape in ((o, i), (o,))]
    inputs = torch.randn(members, EXAMPLES, SIZES[0], generator=drawn)
    return tensors, inputs, torch.randint(0, SIZES[-1], (members, EXAMPLES), generator=drawn)


def outputs(tensors, inputs):
    first, second = tensors[:2], tensors[2:]
    return oho.members.linear(torch.tanh(oho.members.linear(inputs, *first)), *second)


def entropy(tensors, inputs, classes):
    return oho.members.cross_entropy(outputs(tensors, inputs), classes)


def error(tensors, inputs, classes):
    return oho.members.squared_error(outputs(tensors, inputs), inputs[..., : SIZES[-1]])


@pytest.mark.parametrize("losses", [entropy, error])
@pytest.mark.parametrize("large_weight", [1, pearlmutter.LARGE_WEIGHT])
def test_the_tape_answers_for_members_as_a_second_backward_pass_does(losses, large_weight, monkeypatch):
    monkeypatch.setattr(pearlmutter, "LARGE_WEIGHT", large_weight)
    tensors, inputs, classes = made()
    parameters = [tensor.requires_grad_() for tensor in tensors]
    flat = flat_parameters(parameters, M)
    with Tape(flat) as tape:
        loss = losses(parameters, inputs, classes)
    assert tape.answers_for(loss)
    directions = torch.randn(4, M, flat.size, generator=torch.Generator().manual_seed(1))
    found, expected = (
        engine(lambda: losses(parameters, inputs, classes), flat, directions)
        for engine in (oho.pearlmutter, oho.double_backward)
    )
    for ours, theirs in zip((*found[:2], found.products), (*expected[:2], expected.products), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def population_and_singles(steps):
    """The same trainings as members, each with its own rates, and one by one."""
    tensors, inputs, classes = made()
    lrs, options = [0.01, 0.02, 0.05], {"sets": "full", "check": None}
    together = [tensor.clone().requires_grad_() for tensor in tensors]
    meta = oho.MetaSGD({"lr": RATES * 1e-2, "weight_decay": RATES * 1e-4})
    population = oho.OHO(together, oho.Adam(torch.tensor(lrs), 1e-3), meta=meta, members=M, **options)
    singles = []
    for index, lr in enumerate(lrs):
        own = [tensor[index].clone().requires_grad_() for tensor in tensors]
        rate = float(RATES[index])
        meta = oho.MetaSGD({"lr": rate * 1e-2, "weight_decay": rate * 1e-4})
        singles.append((own, oho.OHO(own, oho.Adam(lr, 1e-3), meta=meta, **options)))
    for _ in range(steps):
        population.step(*[lambda: entropy(together, inputs, classes)] * 2)
        for index, (own, optimizer) in enumerate(singles):
            place = slice(index, index + 1)

            def loss(own=own, place=place):
                return entropy([tensor.unsqueeze(0) for tensor in own], inputs[place], classes[place])[0]

            optimizer.step(*[lambda loss=loss: loss()] * 2)
    return together, population, singles


def test_a_member_shows_and_saves_what_its_own_optimizer_does():
    together, population, singles = population_and_singles(steps=4)
    for index, (own, optimizer) in enumerate(singles):
        member = population.member(index)
        torch.testing.assert_close([tensor[index] for tensor in together], own)
        assert (member.steps, member.skipped, member.shortened) == (4, optimizer.skipped, optimizer.shortened)
        for name in ("hyper", "hypergradient"):
            torch.testing.assert_close(dict(getattr(member, name)), {n: v + 0 for n, v in getattr(optimizer, name).items()})
        torch.testing.assert_close(member.influence_norm(), optimizer.influence_norm())
        optimizer.load_state_dict(member.state_dict())  # the states have one shape


def test_a_population_goes_on_from_its_members_states():
    _, population, singles = population_and_singles(steps=2)
    saved = population.state_dict()
    population.load_members([optimizer.state_dict() for _, optimizer in singles])
    torch.testing.assert_close(population.state_dict()["influence"], saved["influence"])
    singles[0][1].step(lambda: singles[0][0][0].sum())
    with pytest.raises(ValueError, match="members made 3, 2, 2 steps"):
        population.load_members([optimizer.state_dict() for _, optimizer in singles])
    with pytest.raises(ValueError, match="load_members: at least one state"):
        population.load_members([])


def test_a_member_is_set_alone():
    _, population, _ = population_and_singles(steps=1)
    before = population.hyper["lr"] + 0
    population.member(1).set_hyper("lr", 0.5)
    assert (population.hyper["lr"][1] == 0.5).all()
    assert torch.equal(population.hyper["lr"][::2], before[::2])


def test_a_member_is_set_by_place_in_a_vector_of_the_loss():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    loss = oho.LossHyper(smoothing=0.1, tasks=torch.ones(3))
    member = oho.OHO([weight], oho.SGD(0.1), loss=loss, members=2).member(1)
    member.set_hyper("tasks", {2: 0.5})
    member.set_hyper("smoothing", 0.2)
    assert member.population.hyper["tasks"].tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.5]]
    torch.testing.assert_close(member.population.hyper["smoothing"] + 0, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(("name", "value", "said"), [
    ("rate", 0.5, "no hyperparameter 'rate'; there are lr"),
    ("lr", {"nowhere": 0.5}, "lr: there is no set 'nowhere'; there are"),
    ("lr", [0.5] * 7, "a number is expected, or one for each of"),
])  # fmt: skip
def test_a_member_is_set_to_what_there_is(name, value, said):
    _, population, _ = population_and_singles(steps=0)
    with pytest.raises(ValueError, match=said):
        population.member(1).set_hyper(name, value)


def test_only_a_population_has_members():
    _, population, singles = population_and_singles(steps=0)
    with pytest.raises(ValueError, match=r"member\(3\): allowed are 0 to members - 1"):
        population.member(3)
    with pytest.raises(ValueError, match="members=None"):
        singles[0][1].member(0)


def test_an_ignored_example_counts_as_in_autograd():
    tensors, inputs, classes = made()
    classes[1, :2] = -100
    parameters = [tensor.requires_grad_() for tensor in tensors]
    flat = flat_parameters(parameters, M)
    directions = torch.randn(2, M, flat.size, generator=torch.Generator().manual_seed(1))
    found, expected = (
        engine(lambda: entropy(parameters, inputs, classes), flat, directions)
        for engine in (oho.pearlmutter, oho.double_backward)
    )
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.products, expected.products, rtol=1e-11, atol=1e-12)
