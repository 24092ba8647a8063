"""Searchers on the edges of a space."""

import pytest

from baselines.searchers import SEARCHERS
from bench.space import Dimension, Space

DECAY = Dimension(low=1e-5, high=0.1, log=True, complement=True)


@pytest.mark.parametrize("edge", [1e-5, 0.1])
@pytest.mark.parametrize("name", SEARCHERS)
def test_a_decay_factor_on_the_edge_can_be_told(name, edge):
    """1 − (1 − 1e-5) is a little less than 1e-5."""
    searcher = SEARCHERS[name](Space(name="edge", hyperparameters={"gamma": DECAY}), ["gamma"], 0)
    for _ in range(6):
        searcher.ask()
        searcher.tell({"gamma": DECAY.value(edge)}, 1.0)
    assert 0.9 <= searcher.ask()["gamma"] <= 1 - 1e-6
