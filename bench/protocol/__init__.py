"""The protocol of methods: a method's module can import all that it needs from here."""

from bench.protocol.amounts import Amount
from bench.protocol.batched import Batched, Batching, train_together
from bench.protocol.checkpoints import packed, unpacked
from bench.protocol.engine import (
    GRAPH,
    CapturedFunction,
    CapturedUpdates,
    Capturing,
    Closure,
    descend,
    make_capturable,
    uses_stand_in,
)
from bench.protocol.entry import MethodEntry, Package
from bench.protocol.ledger import Ledger
from bench.protocol.loss_hyper import LossHyperparameter, not_offered
from bench.protocol.method import Method, Options
from bench.protocol.noise import Noise, ReplayedNoise
from bench.protocol.objective import Evaluation, Objective
from bench.protocol.optimizers import OPTIMIZERS, AnyOptimizer, InitialValues, WithOptimizer
from bench.protocol.settings import Settings
from bench.protocol.space import Dimension, Space, draw
from bench.protocol.stacked import CannotStackError, Stacked, StackedBatches
from bench.protocol.state import Incumbent, Kick, State, Trial, remade
from bench.protocol.streams import stream, stream_seed
from bench.protocol.task import Batch, Batches, Split, Task
from bench.protocol.training import adopt, judged_anew, select, train
from bench.protocol.world import World

__all__ = [
    "GRAPH",
    "OPTIMIZERS",
    "Amount",
    "AnyOptimizer",
    "Batch",
    "Batched",
    "Batches",
    "Batching",
    "CannotStackError",
    "CapturedFunction",
    "CapturedUpdates",
    "Capturing",
    "Closure",
    "Dimension",
    "Evaluation",
    "Incumbent",
    "InitialValues",
    "Kick",
    "Ledger",
    "LossHyperparameter",
    "Method",
    "MethodEntry",
    "Noise",
    "Objective",
    "Options",
    "Package",
    "ReplayedNoise",
    "Settings",
    "Space",
    "Split",
    "Stacked",
    "StackedBatches",
    "State",
    "Task",
    "Trial",
    "WithOptimizer",
    "World",
    "adopt",
    "descend",
    "draw",
    "judged_anew",
    "make_capturable",
    "not_offered",
    "packed",
    "remade",
    "select",
    "stream",
    "stream_seed",
    "train",
    "train_together",
    "unpacked",
    "uses_stand_in",
]
