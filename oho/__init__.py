"""Exact online hypergradients for any PyTorch model: learning rate, weight decay and more are tuned while it trains.

    optimizer = oho.OHO(model.parameters(), oho.SGD(lr=0.1))
    loss = optimizer.step(train_closure, valid_closure)

Source: Im, Savin, Cho, "Online hyperparameter optimization by real-time recurrent learning", arXiv 2102.07813.
"""

from oho import losses, members
from oho.audit import Audit, audit
from oho.averages import Exponential, Recent, ScheduleFree, Uniform
from oho.captured_step import CapturedStep
from oho.check import Check, Checked, check
from oho.engines.curvature import double_backward, pearlmutter
from oho.engines.repeating import finite_difference, forward_over_reverse
from oho.found_settings import averaged, averaged_meta
from oho.graphs import Captured, StaticInputs
from oho.loss_hyper import ONE_STEP_ABOVE, LossHyper
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaAdam, MetaSGD, MetaSign, default_meta
from oho.optimizer import OHO
from oho.published import PublishedOHO
from oho.rules import SGD, Adam, AdamW, Momentum
from oho.sets import Layerwise, Sets
from oho.stand_in import NotCapturableError
from oho.tuned_steps import Windows

__all__ = [
    "DEFAULT_DISCOUNT",
    "DEFAULT_LIMIT",
    "OHO",
    "ONE_STEP_ABOVE",
    "SGD",
    "Adam",
    "AdamW",
    "Audit",
    "Captured",
    "CapturedStep",
    "Check",
    "Checked",
    "Exponential",
    "Layerwise",
    "LossHyper",
    "MetaAdam",
    "MetaSGD",
    "MetaSign",
    "Momentum",
    "NotCapturableError",
    "PublishedOHO",
    "Recent",
    "ScheduleFree",
    "Sets",
    "StaticInputs",
    "Uniform",
    "Windows",
    "audit",
    "averaged",
    "averaged_meta",
    "check",
    "default_meta",
    "double_backward",
    "finite_difference",
    "forward_over_reverse",
    "losses",
    "members",
    "pearlmutter",
]
