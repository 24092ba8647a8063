"""An average of the weights: its influence against reverse mode, its weights against their definition."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from small_trainings import RULES, SETS, loss_of, make_problem, online, relative_error, unrolled

import oho

AVERAGES = {
    "exponential": oho.Exponential(6),
    "uniform": oho.Uniform(5),
    "recent": oho.Recent(0.3),
    "schedule-free": oho.ScheduleFree(0.8),
}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("rule", RULES)
def test_exact_equals_reverse_mode(rule, average):
    optimizer, _ = online(RULES[rule], SETS["layerwise"], average=AVERAGES[average])
    values, loss = unrolled(RULES[rule], optimizer.set_map, average=AVERAGES[average])
    tuned = RULES[rule].tune
    for name, exact in zip(tuned, torch.autograd.grad(loss, [values[n] for n in tuned]), strict=True):
        assert relative_error(optimizer.hypergradient[name], exact) < 1e-10, name


@pytest.mark.parametrize("average", AVERAGES)
def test_a_share_of_the_present_weights_equals_reverse_mode(average):
    options = {"average": AVERAGES[average], "present_share": 0.4}
    optimizer, _ = online(RULES["momentum"], SETS["global"], **options)
    values, loss = unrolled(RULES["momentum"], optimizer.set_map, **options)
    tuned = RULES["momentum"].tune
    for name, exact in zip(tuned, torch.autograd.grad(loss, [values[n] for n in tuned]), strict=True):
        assert relative_error(optimizer.hypergradient[name], exact) < 1e-10, name


def test_a_share_of_one_is_a_run_whose_average_moves_nothing():
    _, plain, flat, _ = trained(None)
    model, optimizer, same, _ = trained(oho.Exponential(6), present_share=1.0)
    assert torch.equal(flat[-1], same[-1])
    assert all(torch.equal(plain.hypergradient[name], value) for name, value in optimizer.hypergradient.items())
    assert not torch.equal(averaged(model, optimizer), same[-1])


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("average", AVERAGES)
def test_the_audit_of_a_moving_run_agrees(average, share):
    model, batches = make_problem()
    optimizer = oho.OHO(
        model.named_parameters(), RULES["adamw"], meta=oho.MetaAdam(0.05), sets="full", discount=0.9,
        average=AVERAGES[average], present_share=share,
    )  # fmt: skip
    pairs = [(lambda b=b: loss_of(model, b), lambda b=b: loss_of(model, batches[-1])) for b in batches[:-1]]
    for train, valid in pairs[:8]:
        optimizer.step(train, valid)
    found = oho.audit(model, optimizer, pairs[8:])
    assert max(float(error.max()) for error in found.relative_error.values()) < 1e-10


def trained(average, steps=12, rule=None, **options):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), rule or RULES["momentum"], meta=oho.MetaAdam(0.05), average=average, **options)
    flat = [torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()]
    for batch in batches[:steps]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
        flat.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    return model, optimizer, flat, batches


def averaged(model, optimizer):
    with optimizer.averaged():
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_the_exponential_average_is_the_weighted_mean_of_all_weights():
    model, optimizer, flat, _ = trained(oho.Exponential(6))
    beta, weights = 1 - 1 / 6, flat[1:]
    shares = torch.tensor([beta ** (len(weights) - 1 - i) for i in range(len(weights))], dtype=torch.float64)
    expected = (shares / shares.sum()) @ torch.stack(weights)
    torch.testing.assert_close(averaged(model, optimizer), expected, rtol=1e-12, atol=1e-14)


def test_the_uniform_average_is_the_mean_after_its_start():
    model, optimizer, flat, _ = trained(oho.Uniform(5))
    expected = torch.stack(flat[6:]).mean(0)
    torch.testing.assert_close(averaged(model, optimizer), expected, rtol=1e-12, atol=1e-14)
    model, optimizer, flat, _ = trained(oho.Uniform(5), steps=4)
    assert torch.equal(averaged(model, optimizer), flat[-1])


def test_schedule_free_is_its_authors_recursion():
    """z ← z − η ∇L(y), x the mean of all z, y = (1 − β) z + β x; the model holds y, `averaged` puts x in its place."""
    rule = oho.SGD(0.1, tune=("weight_decay",))
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(0.0), average="schedule-free")
    twin, _ = make_problem()
    z = torch.nn.utils.parameters_to_vector(twin.parameters()).detach()
    x, y = z, z
    for step, batch in enumerate(batches[:10], start=1):
        optimizer.step(lambda b=batch: loss_of(model, b))
        torch.nn.utils.vector_to_parameters(y, twin.parameters())
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(twin, batch), list(twin.parameters()))])
        z = z - 0.1 * gradient
        x = x + (z - x) / step
        y = 0.1 * z + 0.9 * x
    torch.testing.assert_close(torch.nn.utils.parameters_to_vector(model.parameters()).detach(), y, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(averaged(model, optimizer), x, rtol=1e-12, atol=1e-14)


def test_the_weights_are_back_after_averaged_even_where_the_block_raises():
    model, optimizer, flat, _ = trained(oho.Exponential(6))
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()).detach(), flat[-1])


def test_the_weights_of_a_single_tensor_are_back_too():
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = oho.OHO([theta], oho.SGD(0.1), average=oho.Exponential(6), check=None)
    for _ in range(3):
        optimizer.step(lambda: (theta**4).sum(), lambda: (theta**2).sum())
    present = theta.detach().clone()
    with optimizer.averaged():
        assert not torch.equal(theta, present)
    assert torch.equal(theta, present)


def test_a_horizon_of_one_step_is_no_average():
    _, plain, flat, _ = trained(None)
    _, optimizer, same, _ = trained(oho.Exponential(1))
    assert torch.equal(flat[-1], same[-1])
    assert all(torch.equal(plain.hypergradient[name], value) for name, value in optimizer.hypergradient.items())


@pytest.mark.parametrize("average", AVERAGES)
def test_a_saved_state_goes_on_bit_for_bit(average):
    model, optimizer, _, batches = trained(AVERAGES[average], steps=8)
    other = copy.deepcopy(model)
    again = oho.OHO(other.parameters(), RULES["momentum"], meta=oho.MetaAdam(0.05), average=AVERAGES[average])
    again.load_state_dict(optimizer.state_dict())
    for batch in batches[8:12]:
        for its, own in ((model, optimizer), (other, again)):
            own.step(lambda m=its, b=batch: loss_of(m, b), lambda m=its: loss_of(m, batches[-1]))
    assert torch.equal(averaged(model, optimizer), averaged(other, again))
    with pytest.raises(ValueError, match="this optimizer none"):
        oho.OHO(other.parameters(), RULES["momentum"]).load_state_dict(optimizer.state_dict())


def test_members_have_averages_of_their_own():
    problems = [make_problem(seed) for seed in (0, 1)]
    alike = zip(*(model.parameters() for model, _ in problems), strict=True)
    stacked = [torch.nn.Parameter(torch.stack(tensors)) for tensors in alike]

    def losses(batches):
        first, bias, second, offset = stacked
        hidden = torch.tanh(torch.stack([x for x, _ in batches]) @ first.transpose(1, 2) + bias.unsqueeze(1))
        outputs = hidden @ second.transpose(1, 2) + offset.unsqueeze(1)
        return torch.stack([torch.nn.functional.cross_entropy(o, y) for o, (_, y) in zip(outputs, batches, strict=True)])

    optimizer = oho.OHO(stacked, RULES["momentum"], meta=oho.MetaAdam(0.05), members=2, average=oho.Exponential(6))
    for step in range(6):
        optimizer.step(
            lambda step=step: losses([b[step] for _, b in problems]), lambda: losses([b[-1] for _, b in problems])
        )
    for member, (model, batches) in enumerate(problems):
        alone = oho.OHO(model.parameters(), RULES["momentum"], meta=oho.MetaAdam(0.05), average=oho.Exponential(6))
        for batch in batches[:6]:
            alone.step(lambda m=model, b=batch: loss_of(m, b), lambda m=model, b=batches: loss_of(m, b[-1]))
        with optimizer.averaged():
            found = torch.cat([tensor[member].detach().flatten() for tensor in stacked])
        torch.testing.assert_close(found, averaged(model, alone), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("average", "says"),
    [
        ("ema", "allowed are 'schedule-free'"),
        (oho.Exponential, "is expected; given Exponential"),
        (0.99, "is expected; given float"),
    ],
)
def test_another_average_is_refused(average, says):
    with pytest.raises((TypeError, ValueError), match=says):
        oho.OHO(make_problem()[0].parameters(), oho.SGD(0.1), average=average)


@pytest.mark.parametrize(
    "make",
    [
        lambda: oho.Exponential(0.5), lambda: oho.Uniform(-1), lambda: oho.Recent(0), lambda: oho.ScheduleFree(1.0),
        lambda: oho.Recent("1/10"),
    ],
)
def test_an_average_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="must"):
        make()


@pytest.mark.parametrize(("share", "average"), [(1.5, oho.Exponential(6)), (0.5, None)])
def test_a_share_out_of_range_or_without_an_average_is_refused(share, average):
    with pytest.raises(ValueError, match=f"present_share={share}"):
        oho.OHO(make_problem()[0].parameters(), oho.SGD(0.1), average=average, present_share=share)


@pytest.mark.parametrize("clipping", [{"clip_value": 0.1}, {"clip_norm": math.inf}, {"clip_norm": 2.0}])
def test_averaged_leaves_a_rule_that_clips_as_it_is(clipping):
    rule = oho.SGD(0.1, **clipping)
    model, batches = make_problem()
    optimizer = oho.averaged(model.parameters(), rule)
    optimizer.step(lambda: loss_of(model, batches[0]), lambda: loss_of(model, batches[1]))
    assert optimizer.rule == rule
    assert bool(optimizer.hypergradient["lr"].isfinite())


@dataclass(frozen=True)
class NeverClips:
    """A rule of a user's own, which has no field for clipping."""

    names: ClassVar = ("lr",)
    slot_names: ClassVar = ()
    counter_names: ClassVar = ()
    clip_norm: ClassVar = None
    clip_value: ClassVar = None
    temperature: ClassVar = 0.0
    lr: float
    tune: tuple = ("lr",)

    def __call__(self, theta, gradient, slots, hyper, noise=None):
        return theta - hyper["lr"] * gradient, {}


def test_averaged_takes_a_rule_without_a_field_for_clipping_and_refuses_a_class():
    assert oho.averaged(make_problem()[0].parameters(), NeverClips(0.1)).rule == NeverClips(0.1)
    with pytest.raises(TypeError, match=r"an instance of .* Momentum, Adam or AdamW is expected"):
        oho.averaged(make_problem()[0].parameters(), oho.SGD)


@pytest.mark.parametrize(("rule", "limit"), [
    (oho.SGD(0.1), 1.0), (oho.Momentum(0.1), 0.1), (oho.Adam(1e-3), 0.1), (oho.AdamW(1e-3), 0.1)
])  # fmt: skip
def test_the_found_limit_of_the_influence_is_the_rules(rule, limit):
    assert oho.averaged(make_problem()[0].parameters(), rule).influence_limit == limit
    assert oho.averaged(make_problem()[0].parameters(), rule, influence_limit=0.5).influence_limit == 0.5


def test_averaged_is_oho_with_its_settings_any_of_which_may_be_replaced():
    model, batches = make_problem()
    optimizer = oho.averaged(model.parameters(), oho.SGD(0.1), update_every=2)
    assert (optimizer.average, optimizer.present_share, optimizer.update_every) == (oho.Recent(0.1), 0.5, 2)
    assert (optimizer.meta, optimizer.discount, optimizer.influence_limit) == (oho.averaged_meta(), 0.999, 1.0)
    assert optimizer.rule == oho.SGD(0.1, clip_norm=1.0)
    for batch in batches[:4]:
        optimizer.step(
            lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]),
            curvature_closure=halves(model, batch)[0],
        )  # fmt: skip
    assert float(optimizer.hyper["lr"]) != 0.1


def halves(model, batch):
    inputs, targets = (tensor.split(4) for tensor in batch)
    return [lambda part=part: loss_of(model, part) for part in zip(inputs, targets, strict=True)]


def test_products_of_a_part_of_the_batch_have_the_mean_of_the_whole():
    """After one step, whose tangents are the same in each run, products are linear in the batch."""

    def second(choose):
        model, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), RULES["sgd"], meta=oho.MetaSGD(0.0))
        for step, batch in enumerate(batches[:2]):
            part = choose(model, batch) if step else None
            optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]), curvature_closure=part)
        return optimizer.hypergradient["lr"], torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    whole, theta = second(lambda model, batch: None)
    found = [second(lambda model, batch, i=i: halves(model, batch)[i]) for i in (0, 1)]
    assert all(torch.equal(own, theta) for _, own in found)  # the gradient is that of the whole batch
    assert not torch.equal(found[0][0], whole)
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, whole, rtol=1e-12, atol=1e-15)


def test_products_of_a_part_draw_no_masks_and_move_no_statistics():
    """What the step's own evaluation draws and moves is that of a run without `curvature_closure`."""

    def run(part):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            layers = torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(), torch.nn.Linear(4, 3)
            model = torch.nn.Sequential(*layers)
            _, batches = make_problem()
            batches = [(x.float(), y) for x, y in batches[:4]]
            optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.0), discount=1.0)
            for batch in batches:
                optimizer.step(
                    lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]),
                    curvature_closure=halves(model, batch)[0] if part else None,
                )  # fmt: skip
            return model.state_dict()

    torch.testing.assert_close(run(True), run(False), rtol=1e-5, atol=1e-6)  # they compute gradients in two ways


def test_the_audit_shows_what_products_of_a_part_cost():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), RULES["momentum"], meta=oho.MetaSGD(0.0), average=oho.Exponential(6))
    steps = [
        (lambda b=b: loss_of(model, b), lambda: loss_of(model, batches[-1]), halves(model, b)[0]) for b in batches[:6]
    ]
    errors = oho.audit(model, optimizer, steps).relative_error
    assert all(1e-4 < float(error) < 1 for error in errors.values())


@pytest.mark.parametrize("average", [*AVERAGES.values(), None], ids=[*AVERAGES, "none"])
def test_weights_that_are_loaded_before_the_first_step_are_trained(average):
    first, loaded = make_problem()[0], make_problem(seed=1)[0]
    options = {"meta": oho.MetaAdam(0.05), "average": average}
    optimizers = [oho.OHO(model.parameters(), RULES["momentum"], **options) for model in (first, loaded)]
    first.load_state_dict(loaded.state_dict())
    with optimizers[0].averaged():
        assert all(map(torch.equal, first.parameters(), loaded.parameters()))
    for batch in make_problem()[1][:4]:
        for model, optimizer in zip((first, loaded), optimizers, strict=True):
            optimizer.step(lambda m=model, b=batch: loss_of(m, b), lambda m=model, b=batch: loss_of(m, b))
        assert all(map(torch.equal, first.parameters(), loaded.parameters()))
    assert torch.equal(averaged(first, optimizers[0]), averaged(loaded, optimizers[1]))


def test_no_copy_is_made_of_a_model_that_holds_the_average():
    model, optimizer, _, _ = trained(oho.Exponential(6))
    for copying in (lambda: copy.deepcopy((model, optimizer)), optimizer.state_dict):
        with optimizer.averaged(), pytest.raises(RuntimeError, match="the model holds the average"):
            copying()
        copying()


def test_statistics_of_the_average_stay_in_the_block():
    """Batch norm's running statistics are those of the training again, so that evaluations change no later step."""

    def trained(evaluates):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).double()
        _, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), RULES["adamw"], meta=oho.MetaAdam(0.05), average=oho.Exponential(6))
        for batch in batches[:8]:
            optimizer.step(
                lambda b=batch: loss_of(model.train(), b), lambda: loss_of(model.eval(), batches[-1])
            )
            if evaluates:
                before = {name: buffer.clone() for name, buffer in model.named_buffers()}
                with optimizer.averaged():
                    torch.optim.swa_utils.update_bn([x for x, _ in batches], model)
                    assert not torch.equal(model[1].running_mean, before["1.running_mean"])
                assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        return optimizer.hyper

    plain, evaluated = trained(False), trained(True)
    assert all(torch.equal(value, evaluated[name]) for name, value in plain.items())
