"""What people put into a training loop: right, or refused by name.  The right value comes from whole trainings."""

import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_trainings import loss_of, make_problem
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction, checkpoint

import oho

STEPS = 4
SHIFT = 1e-5
MOVES = {"lr": 0.1, "weight_decay": 0.05}


def trained(make, values, *, tuned, steps=STEPS, **options):
    """Trains on what `make` returns, (parameters, training closures, validation closure); hyperparameters stay."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parameters, closures, valid = make()
        rule = oho.SGD(**values, tune=tuple(MOVES) if tuned else ())
        optimizer = oho.OHO(parameters, rule, meta=oho.MetaSGD(0.0), **options)
        for step in range(steps):
            optimizer.step(closures[step % len(closures)], valid)
        return optimizer, float(valid().detach())


def error(make, **options):
    """Largest relative error of a hypergradient against central differences of the whole training."""
    optimizer, _ = trained(make, MOVES, tuned=True, **options)
    errors = []
    for name, value in MOVES.items():
        ends = [trained(make, {**MOVES, name: value + s * SHIFT}, tuned=False, **options)[1] for s in (1, -1)]
        exact = (ends[0] - ends[1]) / (2 * SHIFT)
        errors.append(abs(float(optimizer.hypergradient[name]) - exact) / abs(exact))
    return max(errors), optimizer


def classifier(model, inputs, *, classes=3):
    """Parameters and closures of a classifier on two batches."""
    model = model.double()
    batches = [(inputs(), torch.randint(classes, (len(inputs()),))) for _ in range(3)]
    closures = [lambda b=batch: loss_of(model, b) for batch in batches]
    return model.named_parameters(), closures[:-1], closures[-1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.queries, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.encoder(inputs)
        queries = self.queries(hidden).unsqueeze(1)
        return self.last(functional.scaled_dot_product_attention(queries, queries, queries).mean((1, 2)))


class Checkpointed(Attention):
    """What its backward pass computes again must be what its forward pass has computed."""

    def forward(self, inputs):
        return checkpoint(super().forward, inputs, use_reentrant=False)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.last = kind(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.last(self.cell(inputs)[0][:, -1])


class Words(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words, self.last = words, nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.words(inputs)
        return self.last(torch.tanh(hidden if hidden.ndim == 2 else hidden.mean(1)))


def sequences():
    return torch.randn(6, 5, 4).double()


def words():
    return torch.randint(7, (6, 4))


EXACT = {
    "attention": lambda: classifier(Attention(), sequences),
    "checkpointed attention": lambda: classifier(Checkpointed(), sequences),
    "LSTM": lambda: classifier(Recurrent(nn.LSTM), sequences),
    "GRU": lambda: classifier(Recurrent(nn.GRU), sequences),
    "fused weight norm": lambda: classifier(
        nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)),
        lambda: torch.randn(6, 4).double(),
    ),
    "hard sigmoid": lambda: classifier(
        nn.Sequential(nn.Linear(4, 5), nn.Hardsigmoid(), nn.Linear(5, 3)), lambda: torch.randn(6, 4).double()
    ),
    "sparse embedding": lambda: classifier(Words(nn.Embedding(7, 4, sparse=True)), words),
}


@pytest.mark.parametrize("case", EXACT)
def test_right_without_a_word(case):
    """Differences of whole trainings, of step 1e-5, leave up to 2e-7."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, optimizer = error(EXACT[case])
    assert found < 1e-6
    assert optimizer.engine == "double_backward"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", ["attention", "LSTM", "GRU"])
def test_kernels_of_a_gpu(case):  # pragma: no cover
    model = {"attention": Attention, "LSTM": lambda: Recurrent(nn.LSTM), "GRU": lambda: Recurrent(nn.GRU)}[case]().cuda()
    inputs, targets = torch.randn(6, 5, 4, device="cuda"), torch.randint(3, (6,), device="cuda")
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    for _ in range(3):
        optimizer.step(lambda: loss_of(model, (inputs, targets)), lambda: loss_of(model, (inputs, targets)))
    assert optimizer.engine == "double_backward"
    assert optimizer.skipped == {"hypergradient": 0, "influence": 0}


class Kernels(TorchDispatchMode):
    """Notes whether cuDNN may be used wherever a recurrent layer multiplies with its weights."""

    def __init__(self, may_use_cudnn):
        super().__init__()
        self.may_use_cudnn = may_use_cudnn

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(part in function.name() for part in ("mm", "rnn")):
            self.may_use_cudnn.append(torch.backends.cudnn.enabled)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_run_without_cudnn_in_a_step_alone(kind):
    layer, inputs, may_use_cudnn = kind(4, 5), torch.randn(6, 2, 4), []

    def loss():
        with Kernels(may_use_cudnn):
            outputs = layer(inputs)[0]
        return outputs.square().mean()

    loss()
    assert may_use_cudnn
    assert all(may_use_cudnn)
    may_use_cudnn.clear()
    oho.OHO(layer.parameters(), oho.SGD(0.1)).step(loss)
    assert may_use_cudnn
    assert not any(may_use_cudnn)
    assert torch.backends.cudnn.enabled


def ctc():
    layer = nn.Linear(4, 5).double()
    inputs, targets = torch.randn(9, 3, 4).double(), torch.randint(1, 5, (3, 4))
    lengths = torch.full((3,), 9), torch.full((3,), 4)

    def loss():
        return functional.ctc_loss(layer(inputs).log_softmax(-1), targets, *lengths)

    return layer.parameters(), [loss], loss


@pytest.mark.parametrize(
    "make", [ctc, lambda: classifier(Words(nn.EmbeddingBag(7, 4)), words)], ids=["CTC loss", "embedding bag"]
)
def test_falls_back_to_finite_differences_and_says_so_once(make):
    with pytest.warns(UserWarning, match=r"is not implemented: products are central differences.*two gradients") as said:
        found, optimizer = error(make)
    assert len(said) == 1
    assert optimizer.engine == "finite_difference"
    assert found < 1e-6


def autocast_loop(*, around, steps=6):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    batch = torch.randn(16, 4), torch.randint(3, (16,))
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.3))
    cast = torch.autocast("cpu", torch.bfloat16)
    if around:
        with cast:
            losses = [optimizer.step(lambda: loss_of(model, batch), lambda: loss_of(model, batch)) for _ in range(steps)]
            assert model(batch[0]).dtype == torch.bfloat16
    else:
        inside = cast(lambda: loss_of(model, batch))
        losses = [optimizer.step(inside, inside) for _ in range(steps)]
    return losses, optimizer, model


def test_autocast_around_the_loop_is_autocast_in_the_closures():
    around, inside = autocast_loop(around=True), autocast_loop(around=False)
    assert float(around[0][-1]) < 0.99 * float(around[0][0])
    assert torch.equal(torch.stack(around[0]), torch.stack(inside[0]))
    for name, value in inside[1].hypergradient.items():
        assert torch.equal(around[1].hypergradient[name], value)


@pytest.mark.parametrize("inner", [False, True])
def test_reentrant_checkpointing_is_refused(inner):
    """`CheckpointFunction` is what checkpoint(use_reentrant=True) calls, without the seconds of importing a compiler."""
    model, batches = make_problem()

    def loss():
        given = batches[0][0].clone().requires_grad_(inner)
        return functional.cross_entropy(model[2](CheckpointFunction.apply(model[:2], True, given)), batches[0][1])

    with pytest.raises(RuntimeError, match="pass use_reentrant=False"):
        oho.OHO(model.parameters(), oho.SGD(0.1)).step(loss)


class Sharded(nn.Module):
    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize("kind", ["DataParallel", "FullyShardedDataParallel"])
def test_models_spread_by_other_means_are_refused(kind):
    layer = nn.Linear(2, 1)
    model = nn.DataParallel(layer) if kind == "DataParallel" else type(kind, (Sharded,), {})()
    optimizer = oho.OHO(layer.parameters(), oho.SGD(0.1))
    with pytest.raises(TypeError, match="allowed are DistributedDataParallel, or the module itself"):
        optimizer.step(lambda: model(layer(torch.ones(1, 2))).sum())


def test_parameters_that_cannot_be_trained_are_refused():
    lazy = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"'0.weight' has no shape .* call the model once on a batch"):
        oho.OHO(lazy.named_parameters(), oho.SGD(0.1))
    with pytest.raises(ValueError, match="complex64; allowed are real ones"):
        oho.OHO(nn.Linear(2, 2, dtype=torch.complex64).parameters(), oho.SGD(0.1))


def test_a_parameter_frozen_later_is_an_error_that_names_it():
    model, batches = make_problem()
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.1))
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'0.weight' no longer require a gradient; freeze parameters first"):
        optimizer.step(lambda: loss_of(model, batches[0]))


def test_a_parameter_unfrozen_later_is_an_error_that_names_it():
    """It was left out, and would never be trained."""
    model, batches = make_problem()
    model[0].weight.requires_grad_(False)
    optimizer = oho.OHO(model.named_parameters(), oho.SGD(0.1))
    optimizer.step(lambda: loss_of(model, batches[0]))
    model[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"'0.weight' require a gradient now.*make another optimizer"):
        optimizer.step(lambda: loss_of(model, batches[0]))


def test_trainings_in_two_threads_leave_each_others_buffers_alone():
    """One trains while the other's first closure is watched; both are as if they were alone."""
    started, other_is_done = threading.Event(), threading.Event()

    def train(wait):
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        nn.init.ones_(model[1].weight)
        optimizer, x = oho.OHO(model.parameters(), oho.SGD(0.1)), torch.randn(8, 3, generator=generator)

        def loss():
            if wait and not started.is_set():
                started.set()
                other_is_done.wait(timeout=20)
            return model(x).square().mean()

        for _ in range(3):
            optimizer.step(loss, loss)
        return model[0]

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(train, True)
        assert started.wait(timeout=20)
        quick = pool.submit(train, False).result()
        other_is_done.set()
        layers = [quick, slow.result()]
    for layer in layers:
        assert layer.num_batches_tracked == 6
        assert torch.equal(layer.running_mean, layers[0].running_mean)


def test_a_scaled_loss_is_said():
    model, batches = make_problem()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.0))
    with pytest.warns(UserWarning, match="times 65536, as GradScaler"):
        optimizer.step(lambda: scaler.scale(loss_of(model, batches[0])))


def test_a_closure_that_cannot_be_repeated_is_said():
    model, batches = make_problem()
    total = [torch.zeros(())]

    def running_total():
        total[0] = total[0] + loss_of(model, batches[0])
        return total[0]

    with pytest.raises(RuntimeError, match="returns another loss when it is called again"):
        oho.OHO(model.parameters(), oho.SGD(0.1)).step(running_total)
    drawn = iter(batches)
    with pytest.warns(UserWarning, match="could not be checked"):
        oho.OHO(model.parameters(), oho.SGD(0.1)).step(lambda: loss_of(model, next(drawn)))
    with pytest.raises(RuntimeError, match="products of finite_difference call it again"):
        oho.OHO(model.parameters(), oho.SGD(0.1), curvature="finite_difference").step(lambda: loss_of(model, next(drawn)))


@pytest.mark.parametrize("curvature", ["pearlmutter", "forward_over_reverse", "finite_difference"])
def test_buffers_move_once_a_step(curvature):
    """Running statistics are those of a plain training, however often an engine calls the closure."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    plain = copy.deepcopy(model)
    _, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1, tune=("lr",)), curvature=curvature, meta=oho.MetaSGD(0.0))
    reference = torch.optim.SGD(plain.parameters(), 0.1)
    for batch in batches[:3]:
        optimizer.step(lambda b=batch: loss_of(model, b))
        reference.zero_grad()
        loss_of(plain, batch).backward()
        reference.step()
    for ours, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_power_iteration_by_finite_differences():
    """What the vectors owe to earlier steps is not followed: 3e-5 of the hypergradient here.  Buffers that are not put back
    leave 1e-3.
    """

    def make():
        layer = parametrizations.spectral_norm(nn.Linear(4, 5), n_power_iterations=3)
        return classifier(nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3)), lambda: torch.randn(6, 4).double())

    found, _ = error(make, curvature="finite_difference")
    assert found < 2e-4


def narrow_loop(dtype, rule, *, steps=10):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    batch = torch.randn(64, 4).to(dtype), torch.randint(3, (64,))
    optimizer = oho.OHO(model.named_parameters(), rule, meta=oho.MetaSGD(0.0))
    for _ in range(steps):
        optimizer.step(lambda: loss_of(model, batch), lambda: loss_of(model, batch))
    return model, optimizer, lambda: loss_of(model, batch)


@pytest.mark.parametrize(
    ("dtype", "rule"),
    [(torch.bfloat16, oho.SGD(0.3, 1e-2)), (torch.bfloat16, oho.Adam(0.01, 1e-2)), (torch.float16, oho.Adam(0.01, 1e-2))],
    ids=["bfloat16 SGD", "bfloat16 Adam", "float16 Adam"],
)
def test_narrow_parameters_train_as_those_in_float32(dtype, rule):
    """A bfloat16 number has 8 bits, a relative rounding of 4e-3 in each operation; Adam divides by small gradients."""
    _, wide, _ = narrow_loop(torch.float32, rule)
    model, optimizer, _ = narrow_loop(dtype, rule)
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    assert float(optimizer.hyper["lr"]) == pytest.approx(float(rule.lr), rel=1e-7)
    for name, exact in wide.hypergradient.items():
        assert float(optimizer.hypergradient[name]) == pytest.approx(float(exact), rel=0.1)


def test_small_updates_of_narrow_parameters_come_together_and_are_saved():
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = oho.OHO([parameter], oho.SGD(5e-4, tune=()))
    loss = lambda: parameter.sum()  # noqa: E731
    for _ in range(2):
        optimizer.step(loss)
    assert torch.equal(parameter, torch.ones_like(parameter))  # the next number below is 0.996
    saved, again = optimizer.state_dict(), nn.Parameter(parameter.detach().clone())
    other = oho.OHO([again], oho.SGD(5e-4, tune=()))
    other.load_state_dict(saved)
    for _ in range(198):
        optimizer.step(loss)
        other.step(lambda: again.sum())
    torch.testing.assert_close(parameter.float(), torch.full((3,), 0.9), rtol=4e-3, atol=0)
    assert torch.equal(parameter, again)
    with torch.no_grad():
        parameter.fill_(0.5)  # a checkpoint of the model
    optimizer.step(loss)
    assert torch.equal(parameter.float(), torch.full((3,), 0.5).sub(5e-4).bfloat16().float())


def test_finite_differences_of_narrow_parameters_are_refused():
    model, inputs = nn.Linear(2, 1).bfloat16(), torch.ones(1, 2).bfloat16()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), curvature="finite_difference")
    with pytest.raises(ValueError, match="allowed are float32 and float64"):
        optimizer.step(lambda: model(inputs).sum())


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_a_compiled_model_trains_as_it_was_written(in_place):
    """Compiling for the backend that differentiates ahead of time, as the default one does, without its C++."""

    def trained(compiled, **options):
        model, batches = make_problem()
        model[1] = nn.GELU()
        net = model
        if compiled and in_place:
            model.compile(backend="aot_eager")
        elif compiled:
            net = torch.compile(model, backend="aot_eager")
        optimizer = oho.OHO(net.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.0), **options)
        for batch in batches[:4]:
            optimizer.step(lambda b=batch: loss_of(net, b), lambda: loss_of(net, batches[-1]))
        return optimizer

    plain = trained(False)
    with pytest.warns(UserWarning, match="the training closure runs without it") as said:
        compiled = trained(True)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        differences = trained(True, curvature="finite_difference")
    for name, exact in plain.hypergradient.items():
        assert float(compiled.hypergradient[name]) == pytest.approx(float(exact), rel=1e-10)
        assert float(differences.hypergradient[name]) == pytest.approx(float(exact), rel=1e-6)
