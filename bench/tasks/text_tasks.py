"""Text by characters, of which the model predicts the next one at every place.

Training, validation and test text follow one another in the book, so that the splits do not interleave.
"""

from __future__ import annotations

import hashlib
import urllib.request
from functools import cache, partial
from pathlib import Path

import torch
from pydantic import Field, model_validator
from torch import nn

from bench.protocol.task import Split
from bench.records.errors import DataError
from bench.records.files import replacing_shared
from bench.tasks.data_sets import DataSet, Loaded
from bench.tasks.entry import Facts, TaskEntry
from bench.tasks.objectives import LANGUAGE
from bench.tasks.options import TaskOptions
from bench.tasks.transformer import Transformer

SHAKESPEARE = Path("tinyshakespeare/input.txt")
"""The file under the data root."""
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_CHARACTERS = 1_115_394
TEST_FRACTION = 0.1
"""The share of the text, at its end, that is the test split."""
FETCH_SECONDS = 60
"""The time without an answer after which a download is given up."""


class TransformerOptions(TaskOptions):
    """An example is a piece of `context` characters.  The decoder has `layers` blocks of width `width` with `heads` heads
    each."""

    context: int = Field(default=64, ge=1, le=SHAKESPEARE_CHARACTERS // 100)
    width: int = Field(default=64, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TransformerOptions:
        if self.width % self.heads:
            raise ValueError(f"width: a multiple of heads, {self.heads}, is expected")
        return self


def windows(text: torch.Tensor, context: int) -> Split:
    """Returns pieces of `context` characters (n, context) and, for each character, its successor; drops the rest."""
    count = (len(text) - 1) // context
    used = count * context
    return Split(text[:used].view(count, context).clone(), text[1 : used + 1].view(count, context).clone())


@cache
def shakespeare(context: int) -> DataSet:
    """Returns Karpathy's excerpt of Shakespeare in pieces of `context` characters."""
    first = _first_of_test()
    return DataSet(
        description="1.1 million characters of Shakespeare", kind=LANGUAGE.kind, ordered=True,
        training_examples=(first - 1) // context, load=partial(_load_shakespeare, context),
        present=lambda root: (root / SHAKESPEARE).exists(),
    )  # fmt: skip


def _first_of_test() -> int:
    return int((1 - TEST_FRACTION) * SHAKESPEARE_CHARACTERS)


def _load_shakespeare(context: int, root: Path) -> Loaded:
    text = (_checked(root) if (root / SHAKESPEARE).exists() else _fetched(root)).decode("ascii")
    places = {character: place for place, character in enumerate(sorted(set(text)))}
    codes, first = torch.tensor([places[character] for character in text]), _first_of_test()
    return Loaded(windows(codes[:first], context), windows(codes[first:], context), "Shakespeare", len(places))


def _checked(root: Path) -> bytes:
    path = root / SHAKESPEARE
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
        raise DataError(f"{path.resolve()}: damaged (another hash); remove it, then repeat the command to fetch it again")
    return content


def _fetched(root: Path) -> bytes:
    """Downloads the text from its public address and writes it only if its hash is right."""
    try:
        with urllib.request.urlopen(SHAKESPEARE_ADDRESS, timeout=FETCH_SECONDS) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != SHAKESPEARE_SHA256:
            raise OSError("what came is another text")
        (root / SHAKESPEARE).parent.mkdir(parents=True, exist_ok=True)
        with replacing_shared(root / SHAKESPEARE) as file:
            file.write(content)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"Shakespeare is not in {root.resolve()} and cannot be downloaded ({reason}); set OHO_DATA or --root to a"
            f" folder that holds {SHAKESPEARE}"
        ) from None
    return content


def _transformer(options: TransformerOptions, facts: Facts) -> nn.Module:
    return Transformer(
        facts.outputs, context=facts.input_shape[0], width=options.width, heads=options.heads, layers=options.layers
    )


TINY_SHAKESPEARE = shakespeare(TransformerOptions.model_fields["context"].default)
SHAKESPEARE_TRANSFORMER = TaskEntry(
    description="Shakespeare by characters, a decoder of two layers, 64 wide, the last 1,000 pieces of 64 held out",
    data=lambda options: shakespeare(options.context),
    defaults=TransformerOptions(validation_size=1_000, batch_size=32),
    model=_transformer,
    objective=LANGUAGE,
    evaluation_examples=256,
)
