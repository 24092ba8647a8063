"""The checks of second derivatives: what is right passes, what lies is found and named, and nothing is changed by it."""

import copy
import re
import warnings

import pytest
import torch
from small_trainings import loss_of, make_problem
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import oho


class Sinh(torch.autograd.Function):
    """Its backward pass is right, and constant to autograd."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = x.detach().cosh()
        return x.sinh()

    @staticmethod
    def backward(ctx, adjoint):
        return adjoint * ctx.slope


class Hyperbolic(nn.Module):
    def forward(self, x):
        return Sinh.apply(x)


class Normalised(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            length = torch.linalg.vector_norm(x)
        return torch.tanh(x / length)


class Normal(nn.Module):
    """Batch norm, dropout and kinks."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3))

    def forward(self, x):
        return self.layers(x)


def model_with(inner, *, dtype=torch.float32, first=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(first or nn.Linear(5, 4), inner, nn.Linear(4, 3)).to(dtype)
        batch = torch.randn(40, 5).to(dtype), torch.randint(3, (40,))
    return model, lambda: loss_of(model, batch)


def first_step(model, loss, **options):
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.1), **options)
    optimizer.step(loss, loss)
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_check_changes_nothing(dtype):
    """Parameters, buffers, hypergradients and random numbers are those of a run without it, bit for bit."""
    runs = []
    for check in ("first", None):
        torch.manual_seed(1)
        model, loss = model_with(Normal(), dtype=dtype)
        addresses = [parameter.data_ptr() for parameter in model.parameters()]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer = first_step(model, loss, check=check)
        assert addresses == [parameter.data_ptr() for parameter in model.parameters()]
        runs.append([*model.state_dict().values(), *optimizer.hypergradient.values(), torch.rand(3)])
    for checked, plain in zip(*runs, strict=True):
        assert checked.dtype == plain.dtype
        assert torch.equal(checked, plain)


class Cast(nn.Module):
    """As language models take their softmax."""

    def forward(self, x):
        return functional.softmax(x.float(), -1, dtype=torch.float32).to(torch.float32).type_as(x)


def test_a_cast_to_float32_is_no_wrong_derivative():
    """In float64 it would round the probe away."""
    model, loss = model_with(Cast())
    assert first_step(model, loss).engine == "double_backward"
    assert oho.check(model, lambda: loss().float(), engines=("double_backward",)).ok
    assert oho.audit(model, oho.OHO(model.parameters(), oho.SGD(0.1)), [(loss, loss)]).product.error < 1e-5


LIES = {
    "autograd function": (lambda: (Hyperbolic(), None), r"Sinh \(test_check.py"),
    "detached value": (lambda: (Normalised(), None), r"linalg_vector_norm \(test_check.py"),
    "power iteration": (lambda: (nn.Tanh(), parametrizations.spectral_norm(nn.Linear(5, 4))), r"mv \("),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_second_derivative_is_found_and_its_operation_named(lie):
    make, operation = LIES[lie]
    inner, first = make()
    model, loss = model_with(inner, first=first)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=r"differ from .* in '0\..*Choose curvature='finite_difference'"):
        first_step(model, loss)
    found = oho.check(model, loss, engines=("double_backward", "finite_difference"))
    verdicts = {row.engine: row.verdict for row in found.engines}
    assert (verdicts["double_backward"], verdicts["finite_difference"]) == ("wrong", "right")
    assert not found.ok
    assert len(found.to_blame) == 1
    assert re.match(operation, found.to_blame[0])
    assert found.to_blame[0] in str(found)
    with pytest.raises(ValueError, match="no twin can be made of it"):
        oho.audit(model, oho.OHO(model.parameters(), oho.SGD(0.1)), [(loss, loss)])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert first_step(model, loss, curvature="finite_difference").engine == "finite_difference"


@pytest.mark.parametrize("error", [0.0, 0.05])
def test_a_product_in_float64_is_made_only_where_one_in_float32_disagrees(error):
    """Products of few digits are no false alarm."""
    types = []

    def rounded(closure, parameters, tangents, **options):
        found = oho.double_backward(closure, parameters, tangents, **options)
        types.append(tangents.dtype)
        return found._replace(products=found.products * (1 + error * (tangents.dtype == torch.float32)))

    model, loss = model_with(nn.Tanh())
    first_step(model, loss, curvature=rounded)
    *checked, step = types
    assert checked == [torch.float32, torch.float64][: 2 if error else 1]
    assert step == torch.float32


def test_an_engine_of_ones_own_that_is_wrong_is_found():
    def doubled(closure, parameters, tangents, **options):
        found = oho.double_backward(closure, parameters, tangents, **options)
        return found._replace(products=2 * found.products)

    model, loss = model_with(nn.Tanh())
    with pytest.raises(RuntimeError, match="products of doubled differ"):
        first_step(model, loss, curvature=doubled)


def test_a_check_says_what_each_engine_costs():
    model, loss = model_with(nn.Tanh())
    found = oho.check(model, loss)
    assert found.ok
    assert [row.engine for row in found.engines] == [
        "pearlmutter", "double_backward", "forward_over_reverse", "finite_difference",
    ]  # fmt: skip
    for row in found.engines:
        assert row.verdict == "right"
        assert row.error < (1e-3 if row.engine == "finite_difference" else 1e-5)
        assert row.cost > 1
        assert row.memory >= row.gradient_memory > 4 * 40 * 4  # at least a hidden layer in float32
    assert "nothing to change" in str(found)


def test_a_check_names_what_has_no_second_derivative():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.EmbeddingBag(7, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.tanh(self.words(x)))

    model, batch = Bag(), (torch.randint(7, (6, 4)), torch.randint(3, (6,)))
    found = oho.check(model, lambda: loss_of(model, batch))
    assert "_embedding_bag_backward" in found.engines[0].verdict
    assert found.advice.startswith("choose curvature='finite_difference'")


def test_an_unrepeatable_closure_cannot_be_checked():
    model, batches = make_problem()
    drawn = iter(batches)
    with pytest.raises(RuntimeError, match="returns another loss when it is called again"):
        oho.check(model, lambda: loss_of(model, next(drawn)))


def test_members_are_checked():
    weights = nn.Parameter(torch.randn(3, 5, 4))
    inputs = torch.randn(8, 5)
    losses = lambda: torch.tanh(torch.einsum("bi,mio->mbo", inputs, weights)).square().mean((1, 2))  # noqa: E731
    assert oho.check([weights], losses, members=3).ok


def test_an_audit_reports_its_own_product():
    model, loss = model_with(nn.Tanh(), dtype=torch.float64)
    report = oho.audit(model, oho.OHO(model.parameters(), oho.SGD(0.1)), [(loss, loss)])
    assert report.product.verdict == "right"
    assert "a product of the twin against central differences of gradients: right, relative error" in str(report)


@pytest.mark.parametrize("bad", ["always", True])
def test_an_unknown_check_is_an_error(bad):
    with pytest.raises(ValueError, match="allowed are 'first' and None"):
        oho.OHO(nn.Linear(2, 1).parameters(), oho.SGD(0.1), check=bad)


def test_arguments_in_the_wrong_order_are_told_so():
    model, loss = model_with(nn.Tanh())
    with pytest.raises(TypeError, match=r"give the model, then the closure: oho.check\(model, closure\)"):
        oho.check(loss, model)
