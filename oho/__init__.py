"""Exact online hypergradients for any PyTorch model: learning rate and weight decay tuned while the network trains.

    optimizer = oho.OHO(model.parameters(), rule=oho.SGD(lr=0.1), sets="global", meta=oho.MetaSGD(1e-5))
    loss = optimizer.step(train_closure, valid_closure)

Source: Im, Savin, Cho, "Online hyperparameter optimization by real-time recurrent learning", arXiv 2102.07813.
"""

from oho.meta import MetaAdam, MetaSGD, MetaSign
from oho.optimizer import OHO
from oho.rules import SGD, Adam, AdamW, Momentum
from oho.sets import Layerwise

__all__ = ["OHO", "SGD", "Adam", "AdamW", "Layerwise", "MetaAdam", "MetaSGD", "MetaSign", "Momentum"]
