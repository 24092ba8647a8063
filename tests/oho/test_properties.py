"""Random small networks, rules, sets and options: every exact run passes its audit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import oho

ACTIVATIONS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "gelu": nn.GELU}
LOSSES = {
    "cross entropy": functional.cross_entropy,
    "squared": lambda x, y: functional.mse_loss(x, functional.one_hot(y, 3).to(x)),
    "squared and summed": lambda x, y: (x.softmax(1) - functional.one_hot(y, 3)).pow(2).sum(),
}
RATE, DECAY, FRACTION = st.floats(1e-3, 0.1), st.floats(1e-4, 0.1), st.floats(0.5, 0.95)

rules = st.one_of(
    st.builds(oho.SGD, RATE, DECAY, clip_norm=st.none() | st.floats(0.1, 2.0)),
    st.builds(oho.Momentum, RATE, DECAY, FRACTION, nesterov=st.booleans(), tune=st.just(oho.Momentum.names)),
    st.builds(oho.Adam, RATE, DECAY, FRACTION, FRACTION, tune=st.just(oho.Adam.names)),
    st.builds(oho.AdamW, RATE, DECAY, FRACTION, FRACTION, tune=st.just(oho.AdamW.names)),
)
meta_rules = st.one_of(
    st.builds(oho.MetaAdam, st.floats(1e-4, 0.05)),
    st.builds(oho.MetaSign, st.floats(1e-4, 0.05)),
    st.builds(oho.MetaSGD, st.floats(0.0, 1e-4)),
)
sets = st.sampled_from(["global", "full", oho.Layerwise(1), lambda name: name.endswith("bias")])


@st.composite
def networks(draw):
    widths = draw(st.lists(st.integers(1, 5), max_size=2))
    activation = ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]
    sizes = [4, *widths]
    layers = [module for a, b in zip(sizes, widths, strict=False) for module in (nn.Linear(a, b), activation())]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 3)).double()
    torch.manual_seed(draw(st.integers(0, 1000)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    return model


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    networks(), rules, meta_rules, sets, st.sampled_from(sorted(LOSSES)), st.sampled_from([1.0, 0.99, 0.5, 0.0]),
    st.integers(1, 3), st.sampled_from(["pearlmutter", "double_backward", "forward_over_reverse"]), st.integers(1, 8),
)  # fmt: skip
def test_every_exact_run_passes_its_audit(model, rule, meta, sets, loss, discount, update_every, curvature, count):
    optimizer = oho.OHO(
        model.named_parameters(), rule, sets=sets, meta=meta, discount=discount, update_every=update_every,
        curvature=curvature,
    )  # fmt: skip
    inputs, targets = torch.randn(count * update_every + 1, 6, 4).double(), torch.randint(3, (6,))

    def on(step):
        return lambda: LOSSES[loss](model(inputs[step]), targets)

    report = oho.audit(model, optimizer, [(on(step), on(-1)) for step in range(count * update_every)])
    for name, exact in report.exact.items():
        # Rounding alone; a hypergradient far below its terms (they cancel) is measured against 1e-6.
        assert float((report.found[name] - exact).norm()) < 1e-9 * max(1e-6, float(exact.norm())), (name, report)
