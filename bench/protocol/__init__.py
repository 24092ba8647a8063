"""What a method may see: a method's module can import all it needs from here."""

from bench.protocol.entry import FAMILIES, MethodEntry, Package
from bench.protocol.ledger import Ledger
from bench.protocol.method import (
    Incumbent,
    Kick,
    Method,
    Options,
    State,
    Trial,
    adopt,
    remade,
    select,
    train,
)
from bench.protocol.optimizers import OPTIMIZERS, AnyOptimizer, InitialValues, WithOptimizer
from bench.protocol.space import Dimension, Space, draw
from bench.protocol.streams import stream, stream_seed
from bench.protocol.task import Batch, Batches, Split, Task, evaluate
from bench.records.checkpoints import packed, unpacked

__all__ = [
    "FAMILIES",
    "OPTIMIZERS",
    "AnyOptimizer",
    "Batch",
    "Batches",
    "Dimension",
    "Incumbent",
    "InitialValues",
    "Kick",
    "Ledger",
    "Method",
    "MethodEntry",
    "Options",
    "Package",
    "Space",
    "Split",
    "State",
    "Task",
    "Trial",
    "WithOptimizer",
    "adopt",
    "draw",
    "evaluate",
    "packed",
    "remade",
    "select",
    "stream",
    "stream_seed",
    "train",
    "unpacked",
]
