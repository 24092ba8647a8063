"""The options that tasks share.  A task's own options stand beside its entry."""

from __future__ import annotations

from pydantic import Field

from bench.protocol import Amount, Settings
from bench.protocol.averages import left_out


class Drift(Settings):
    """A drift that turns inputs by `rotate` degrees, counter-clockwise, every `over_epochs` epochs during the whole run."""

    rotate: float = Field(description="degrees, counter-clockwise if positive")
    over_epochs: float = Field(gt=0)

    @property
    def degrees_per_epoch(self) -> float:
        """The angle by which inputs turn in an epoch."""
        return self.rotate / self.over_epochs


class CountedTime(Amount):
    """A counted time: seconds, or as many as so many steps of plain SGD take on the run's device."""

    EXAMPLES = "{seconds: 0.5} or {plain_steps: 500}"

    seconds: float | None = Field(default=None, gt=0, exclude_if=left_out)
    plain_steps: int | None = Field(default=None, ge=1, exclude_if=left_out)


class TaskOptions(Settings):
    """Sizes are numbers of examples; a `validation_size` of null is a fifth of the training examples.  `selection_epochs`
    is the time between two validations that select, and may be a fraction of an epoch.  `selection_every`, such as
    {seconds: 0.5} or {plain_steps: 500}, takes its place: the counted time of a training between two validations, in the
    unit of the budget, so that a method with slow steps does not select late.  `data` names another data set than
    the task's own: a registered one, or ./FILE.py:NAME.  `drift`, such as {rotate: 360, over_epochs: 20}, turns all images
    continuously during the run."""

    data: str | None = None
    batch_size: int = Field(default=100, ge=1)
    validation_size: int | None = Field(default=None, ge=1)
    validation_batch_size: int = Field(default=100, ge=1)
    selection_epochs: int | float = Field(default=1, gt=0, allow_inf_nan=False)
    selection_every: CountedTime | None = Field(default=None, exclude_if=left_out)
    drift: Drift | None = None

    def held_out(self, examples: int) -> int:
        """Returns how many of so many training examples are held out for validation."""
        return max(1, examples // 5) if self.validation_size is None else self.validation_size

    def steps_per_epoch(self, trained: int) -> int:
        """Returns the number of full batches in so many training examples."""
        return max(1, trained // self.batch_size)

    def selection_period(self, trained: int) -> int:
        """Returns the steps between two validations that select, for so many training examples."""
        return max(1, round(self.selection_epochs * self.steps_per_epoch(trained)))


class PerceptronOptions(TaskOptions):
    """`width` is the number of units in a hidden layer, `hidden_layers` the number of these layers."""

    width: int = Field(default=128, ge=1)
    hidden_layers: int = Field(default=3, ge=0)


class DropoutOptions(PerceptronOptions):
    """`dropout` is the fraction of each hidden layer's units that a training step leaves out."""

    dropout: float = Field(default=0.2, gt=0, lt=1)


class ConvolutionOptions(TaskOptions):
    """`width` is the number of channels of the first of `blocks` blocks; each block halves the image and doubles them."""

    width: int = Field(default=16, ge=1)
    blocks: int = Field(default=2, ge=1)


class ResidualOptions(TaskOptions):
    """`width` is the number of channels after the stem."""

    width: int = Field(default=64, ge=1)
