"""Hyperparameters of the training loss: exact, in every way that a loop is written, and refused where they cannot work."""

import copy

import pytest
import torch
from small_trainings import RULES, SETS, loss_of, make_problem, online, relative_error, unrolled
from torch import nn
from torch.nn import functional

import oho

VALUES = {"label_smoothing": 0.1, "class_weights": torch.tensor([0.8, 1.0, 1.3], dtype=torch.float64), "scale": 0.7}


def short():
    model, batches = make_problem()
    return model, batches[:6]


def smoothed(outputs, targets, h):
    weighted = oho.losses.cross_entropy(
        outputs, targets, label_smoothing=h["label_smoothing"], class_weights=h["class_weights"]
    )
    return weighted + h["scale"] * outputs.square().mean()


def check_against(optimizer, values, loss, names):
    for name, exact in zip(names, torch.autograd.grad(loss, [values[name] for name in names]), strict=True):
        found = optimizer.hypergradient[name]
        assert found.shape == exact.shape
        assert relative_error(found, exact) < 1e-9, name


@pytest.mark.parametrize(("rule", "sets"), [*((rule, "layerwise") for rule in RULES), ("adam", "global")])
def test_exact_equals_reverse_mode(rule, sets):
    optimizer, _ = online(RULES[rule], SETS[sets], make=short, of=smoothed, loss=oho.LossHyper(**VALUES))
    values, loss = unrolled(RULES[rule], optimizer.set_map, make=short, of=smoothed, loss=VALUES)
    check_against(optimizer, values, loss, (*RULES[rule].tune, *VALUES))


@pytest.mark.parametrize(
    ("curvature", "error"),
    [
        ("double_backward", 1e-10),
        pytest.param("forward_over_reverse", 1e-10, marks=pytest.mark.slow),  # PyTorch prepares itself for seconds
        ("finite_difference", 1e-4),
    ],
)
def test_every_engine_makes_the_mixed_derivative(curvature, error):
    expected, _ = online(RULES["adam"], "global", make=short, of=smoothed, loss=oho.LossHyper(**VALUES))
    found, _ = online(RULES["adam"], "global", make=short, of=smoothed, loss=oho.LossHyper(**VALUES), curvature=curvature)
    for name, value in expected.hypergradient.items():
        assert relative_error(found.hypergradient[name], value) < error, name


@pytest.mark.parametrize("options", [{"clip_norm": 0.3}, {"clip_value": 0.05}])
def test_clipping_is_differentiated_with_it(options):
    rule = oho.SGD(0.1, 1e-2, tune=(), **options)
    optimizer, _ = online(rule, "global", make=short, of=smoothed, loss=oho.LossHyper(**VALUES))

    def clipped(theta, gradient, *rest):
        return rule(theta, oho.rules.clip(gradient, value=rule.clip_value, norm=rule.clip_norm), *rest)

    for name in (*rule.names, "names", "slot_names", "counter_names"):
        setattr(clipped, name, getattr(rule, name))
    check_against(optimizer, *unrolled(clipped, optimizer.set_map, make=short, of=smoothed, loss=VALUES), tuple(VALUES))


@pytest.mark.parametrize(
    ("rule", "average"),
    [
        (RULES["nesterov"], {}),
        (RULES["adam"], {"average": oho.Recent(0.5), "present_share": 0.5}),
        (oho.SGD(0.1, clip_norm=0.3, clip_value=0.1), {"average": "schedule-free", "present_share": 0.5}),
    ],
)
def test_one_step_is_the_influence_with_discount_zero(rule, average):
    rows, _ = online(rule, "full", make=short, of=smoothed, loss=oho.LossHyper(**VALUES), discount=0.0, **average)
    greedy, _ = online(rule, "full", make=short, of=smoothed, loss=oho.LossHyper(one_step=True, **VALUES), **average)
    for name in VALUES:
        assert relative_error(greedy.hypergradient[name], rows.hypergradient[name]) < 1e-12, name
    assert set(greedy.influence_norm()) == set(rule.tune)


def noisy_problem():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 3))
        batches = [(torch.randn(8, 5), torch.randint(3, (8,))) for _ in range(4)]
    return model, batches


@pytest.mark.parametrize("curvature", ["pearlmutter", "finite_difference"])
def test_the_second_call_of_a_closure_leaves_buffers_and_random_numbers(curvature):
    """The one-step form calls closures once more; dropout draws what it drew, and running statistics move once."""
    seen = []
    for one_step in (False, True):
        torch.manual_seed(1)
        model, batches = noisy_problem()
        loss = oho.LossHyper(label_smoothing=0.1, one_step=one_step)
        optimizer = oho.OHO(
            model.parameters(), oho.SGD(0.1), loss=loss, discount=0.0, meta=oho.MetaSGD(0.0), curvature=curvature
        )

        def train(h, batch, model=model):
            model.train()
            return oho.losses.cross_entropy(model(batch[0]), batch[1], label_smoothing=h["label_smoothing"])

        for batch in batches[:-1]:
            parts = [(batch[0][:4], batch[1][:4]), (batch[0][4:], batch[1][4:])]
            optimizer.step(
                [lambda h, part=part, train=train: train(h, part) for part in parts],
                lambda model=model, held=batches[-1]: loss_of(model.eval(), held),
            )
        seen.append([*optimizer.hypergradient.values(), torch.get_rng_state(), *model.buffers(), *model.parameters()])
    for rows, greedy in zip(*seen, strict=True):
        torch.testing.assert_close(greedy, rows, rtol=2e-2 if curvature == "finite_difference" else 1e-4, atol=1e-6)


def test_the_audit_agrees_with_both_forms():
    def weighted(h, model, batch):
        losses = oho.losses.cross_entropy(
            model(batch[0]), batch[1], label_smoothing=h["label_smoothing"], example_weights=h["example_weights"]
        )
        return losses + oho.losses.l2_penalty(model.parameters(), h["l2"])

    model, batches = make_problem()
    loss = oho.LossHyper(
        label_smoothing=0.1, example_weights=torch.ones(8), l2=torch.full((4,), 1e-2), one_step=("example_weights",)
    )
    optimizer = oho.OHO(model.parameters(), oho.Adam(0.01), loss=loss, discount=0.9, reset_every=4, meta=oho.MetaAdam(0.01))
    steps = [
        (lambda h, batch=batch: weighted(h, model, batch), lambda: loss_of(model, batches[-1])) for batch in batches[:6]
    ]
    found = oho.audit(model, optimizer, steps)
    assert found.exact["example_weights"].shape == (8,)
    for name, error in found.relative_error.items():
        assert float(error.max()) < 1e-9, name
    assert "l2               3 " in str(found)


def test_members_are_trainings_of_their_own():
    weights, batches = torch.randn(2, 5, 3, dtype=torch.float64), make_problem()[1][:4]
    smoothing, tasks = torch.tensor([0.05, 0.2]), torch.tensor([[1.0, 0.5], [0.7, 1.2]])

    def loss(outputs, targets, h):
        return oho.losses.cross_entropy(outputs, targets, label_smoothing=h["label_smoothing"]) * h["tasks"][..., 0] + (
            h["tasks"][..., 1] * outputs.square().mean((-2, -1))
        )

    def trained(values, weight, members, one_step):
        weight = nn.Parameter(weight.clone())
        optimizer = oho.OHO(
            [weight], oho.Momentum(0.1), members=members, meta=oho.MetaAdam(0.05),
            loss=oho.LossHyper(label_smoothing=0.1, tasks=values[1], one_step=one_step),
        )  # fmt: skip
        optimizer.hyper["label_smoothing"] = values[0]
        many = () if members is None else (members,)
        for x, y in batches[:-1]:
            optimizer.step(
                lambda h, x=x, y=y: loss(x @ weight, y.expand(*many, -1), h),
                lambda: (batches[-1][0] @ weight).square().mean((-2, -1)),
            )
        return optimizer

    for one_step in (False, ("tasks",)):
        both = trained((smoothing, tasks), weights, 2, one_step)
        for member in range(2):
            alone = trained((smoothing[member], tasks[member]), weights[member], None, one_step)
            for name, value in alone.hyper.items():
                torch.testing.assert_close(both.hyper[name][member], value, rtol=1e-9, atol=1e-12)
            flat = {f"label_smoothing/{member}": float(alone.hyper["label_smoothing"])}
            assert {key: both.flat_hyper()[key] for key in flat} == pytest.approx(flat)


def test_a_saved_training_goes_on_bit_for_bit():
    def run(optimizer, model, batches):
        for batch in batches:
            optimizer.step(lambda h, b=batch: smoothed(model(b[0]), b[1], h), lambda b=batch: loss_of(model, b))

    def made():
        model, batches = make_problem()
        loss = oho.LossHyper(**VALUES, one_step=("class_weights",))
        return oho.OHO(model.parameters(), oho.AdamW(0.01), loss=loss), model, batches

    optimizer, model, batches = made()
    run(optimizer, model, batches[:3])
    again, twin, _ = made()
    twin.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied = copy.deepcopy(optimizer)
    run(optimizer, model, batches[3:6])
    run(again, twin, batches[3:6])
    assert again.flat_hyper() == optimizer.flat_hyper() != copied.flat_hyper()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert set(optimizer.flat_hyper()) >= {"label_smoothing", "class_weights/2", "scale", "lr/global"}


def test_what_is_tuned_stays_in_its_bounds_and_the_rest_where_it_was_put():
    model, batches = make_problem()
    loss = oho.LossHyper(
        label_smoothing=0.01, example_weights=torch.ones(40), scale=0.5, tune=("label_smoothing", "example_weights"),
        rate={"label_smoothing": 1.0}, transform={"example_weights": "log"}, bounds={"example_weights": (0.5, 1.0)},
    )  # fmt: skip
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), loss=loss)
    optimizer.hyper["scale"] = 0.25

    def train(h, start, x, y):
        weights = h["example_weights"][start : start + 8]
        smoothing = h["label_smoothing"]
        return h["scale"] * oho.losses.cross_entropy(model(x), y, label_smoothing=smoothing, example_weights=weights)

    for step, batch in enumerate(batches[:5]):
        optimizer.step(lambda h, s=step, b=batch: train(h, 8 * s, *b), lambda: loss_of(model, batches[-1]))
    assert float(optimizer.hyper["label_smoothing"]) in (0.0, 1.0)
    weights = optimizer.hyper["example_weights"]
    assert 0.5 <= float(weights.min()) < float(weights.max()) <= 1.0
    flat = optimizer.flat_hyper()
    assert flat["scale"] == 0.25
    assert flat["example_weights/min"] == float(weights.min())
    assert "example_weights/0" not in flat
    assert optimizer.skipped == {"hypergradient": 0, "influence": 0}


def test_a_hypergradient_that_is_not_finite_is_skipped():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), loss=oho.LossHyper(scale=0.0), check=None)
    optimizer.step(lambda h: loss_of(model, batches[0]) * (1 + h["scale"].sqrt()), lambda: loss_of(model, batches[-1]))
    assert optimizer.skipped == {"hypergradient": 0, "influence": 1}
    assert float(optimizer.hyper["scale"]) == 0


LOSS = oho.LossHyper(label_smoothing=0.1)
MISTAKES = {
    "a plain number": (lambda m, x, y, h: functional.cross_entropy(m(x), y, label_smoothing=float(h["label_smoothing"])),
                       r"does not depend on label_smoothing.*oho.losses.cross_entropy"),
    "given to torch": (lambda m, x, y, h: functional.cross_entropy(m(x), y, label_smoothing=h["label_smoothing"]),
                       r"oho.losses.cross_entropy"),
    "another name": (lambda m, x, y, h: h["smooth"] * m(x).sum(), "no hyperparameter 'smooth'; it has label_smoothing"),
    "no model": (lambda m, x, y, h: h["label_smoothing"] ** 2, "none of this optimizer's parameters"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_loss_that_cannot_be_right_is_refused(mistake):
    loss, expected = MISTAKES[mistake]
    model, ((x, y), *_) = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), loss=LOSS)
    with pytest.raises((ValueError, TypeError, KeyError), match=expected):
        optimizer.step(lambda h: loss(model, x, y, h), lambda: loss_of(model, (x, y)))


@pytest.mark.parametrize(
    ("given", "train", "valid", "expected"),
    [
        (LOSS, lambda: 0, lambda: 0, "training closure must take the hyperparameters of its loss .label_smoothing."),
        (LOSS, lambda batch=1: 0, lambda: 0, "as its one argument"),
        (LOSS, lambda h: 0, lambda h: 0, "validation closure must take no argument"),
        (None, lambda h: 0, lambda: 0, "unless .*LossHyper"),
    ],
)
def test_closures_take_what_they_are_given(given, train, valid, expected):
    optimizer = oho.OHO(make_problem()[0].parameters(), oho.SGD(0.1), loss=given)
    with pytest.raises(TypeError, match=expected):
        optimizer.step(train, valid)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: oho.LossHyper(), "names and values"),
        (lambda: oho.LossHyper(a="much"), "a number or a tensor"),
        (lambda: oho.LossHyper(a=torch.zeros(2, 2, 2)), r"\(V,\)"),
        (lambda: oho.LossHyper(a=1.0, tune="a"), "tuple"),
        (lambda: oho.LossHyper(a=1.0, tune=("b",)), "there is no b; there are a"),
        (lambda: oho.LossHyper(a=1.0, bounds={"b": (0, 1)}), "there is no b"),
        (lambda: oho.LossHyper(lr=1.0), "lr is a hyperparameter of SGD"),
        (lambda: oho.LossHyper(label_smoothing=1.5), r"label_smoothing=1.5: allowed is \[0, 1\]"),
        (lambda: oho.LossHyper(a=-1.0, transform="log"), "a=-1: allowed is"),
        (lambda: oho.LossHyper(a=1.0, transform="cube"), "'raw', 'log' and 'logit'"),
        (lambda: oho.LossHyper(a=torch.zeros(3, 2)), r"does not fit \(members, components\) = \(1, 2\)"),
        (lambda: oho.LossHyper(a=float("nan")), "must be finite"),
        (lambda: {"a": 1.0}, "oho.LossHyper is expected"),
    ],
)
def test_values_are_checked(make, expected):
    with pytest.raises((ValueError, TypeError), match=expected):
        oho.OHO(make_problem()[0].parameters(), oho.SGD(0.1), loss=make())


def test_the_losses_are_torchs_own():
    outputs, targets = torch.randn(7, 4), torch.randint(4, (7,))
    weights, soft = torch.rand(4), torch.rand(7, 4).softmax(-1)
    for y in (targets, soft):
        expected = functional.cross_entropy(outputs, y, weight=weights, label_smoothing=0.2)
        found = oho.losses.cross_entropy(outputs, y, label_smoothing=0.2, class_weights=weights)
        torch.testing.assert_close(found, expected)
    order = torch.randperm(7)
    mixed, p = oho.losses.mixup(outputs, targets, share=torch.tensor(0.3), order=order, classes=4)
    torch.testing.assert_close(mixed, 0.3 * outputs + 0.7 * outputs[order])
    both = 0.3 * functional.cross_entropy(mixed, targets) + 0.7 * functional.cross_entropy(mixed, targets[order])
    torch.testing.assert_close(oho.losses.cross_entropy(mixed, p), both)
    torch.testing.assert_close(oho.losses.l2_penalty([weights, outputs], torch.tensor([2.0, 0.0])), weights.square().sum())


def test_a_short_vector_beside_one_of_many_components_takes_no_room_for_their_product():
    model, batches = make_problem()
    loss = oho.LossHyper(label_smoothing=0.1, example_weights=torch.ones(10**6))
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), loss=loss)  # a square of 10⁶ components has 8 TB

    def train(h):
        outputs, weights = model(batches[0][0]), h["example_weights"][:8]
        smoothing = h["label_smoothing"]
        return oho.losses.cross_entropy(outputs, batches[0][1], label_smoothing=smoothing, example_weights=weights)

    optimizer.step(train, lambda: loss_of(model, batches[-1]))
    assert all(bool(value.isfinite().all()) for value in optimizer.hypergradient.values())
    assert float(optimizer.hypergradient["label_smoothing"]) != 0
