"""Shocks: events that hit a run from outside, at an epoch that its configuration names.

A hyperparameter is set or scaled in the training in progress, or in all members of a population.  Labels are shifted and
inputs rotated in every split, because the world changes.  Labels are corrupted in the training split only, because what is
asked for stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from bench.protocol import Kick, Settings, Split, Task, stream
from bench.protocol.world import rotated
from bench.records.names import checked_label

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Event(Settings):
    """What happens once the run has trained for `epoch` epochs over all its trials.

    `set` and `scale` map hyperparameters to values and factors.  For a learning rate with a schedule, they apply to what
    the schedule multiplies; OHO keeps within its bounds.  `shift_labels` is added to every label, modulo the number of
    classes.  `rotate` turns inputs by that many degrees counter-clockwise.  `label_noise` is the fraction of training
    labels that become another one, drawn by the seed.
    """

    epoch: float = Field(ge=0)
    set: Mapping[str, NonNegative] = {}
    scale: Mapping[str, Positive] = {}
    shift_labels: int = Field(default=0, ge=0)
    rotate: float = 0.0
    label_noise: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _something_happens(self) -> Event:
        if not (self.kicks or self.changes_data):
            raise ValueError("an event needs one of set, scale, shift_labels, rotate and label_noise")
        if twice := set(self.set) & set(self.scale):
            raise ValueError(f"{', '.join(sorted(twice))}: use set or scale, not both")
        return self

    def step(self, steps_per_epoch: int) -> int:
        """Returns the number of the run's steps before the event."""
        return math.ceil(self.epoch * steps_per_epoch - 1e-9)

    @property
    def kicks(self) -> list[Kick]:
        """The changes of hyperparameters."""
        values = [Kick(name, value=value) for name, value in self.set.items()]
        return values + [Kick(name, factor=factor) for name, factor in self.scale.items()]

    @property
    def changes_world(self) -> bool:
        """Whether validation and test examples change, so that earlier selections have to be judged anew."""
        return bool(self.shift_labels or self.rotate)

    @property
    def changes_data(self) -> bool:
        """Whether any examples change."""
        return self.changes_world or bool(self.label_noise)

    def __str__(self) -> str:
        """Describes the event in words, as on figures."""
        parts = [f"{name} set to {value:g}" for name, value in self.set.items()]
        parts += [f"{name} times {factor:g}" for name, factor in self.scale.items()]
        parts += [f"labels shifted by {self.shift_labels}"] if self.shift_labels else []
        parts += [f"inputs rotated by {self.rotate:g}°"] if self.rotate else []
        parts += [f"{self.label_noise:.0%} of labels corrupted"] if self.label_noise else []
        return f"{' and '.join(parts)} at epoch {self.epoch:g}"


class Shock(Settings):
    """Events of one run, in order.  The run's twin is the run of the same method and seed without them."""

    events: tuple[Event, ...] = Field(min_length=1)
    label: str | None = None
    """The shock's name in figures; by default, the events in words."""

    @field_validator("label", mode="before")
    @classmethod
    def _readable(cls, label: Any) -> Any:
        return checked_label(label)

    @field_validator("events")
    @classmethod
    def _in_order(cls, events: tuple[Event, ...]) -> tuple[Event, ...]:
        return tuple(sorted(events, key=lambda event: event.epoch))

    def resolved(self) -> dict[str, Any]:
        """Returns the shock as a run's spec holds it: plain values, with a label."""
        label = self.label or ", ".join(map(str, self.events))
        events = [event.model_dump(mode="json", exclude_defaults=True) for event in self.events]
        return {"label": label, "events": events}


@torch.no_grad()
def change_data(event: Event, task: Task, test: Split, seed: int) -> None:
    """Writes an event's changes into the task's splits and the test split, which must be the run's own tensors."""
    classes = task.outputs
    for split in (task.train, task.validation, test):
        if event.shift_labels:
            split.targets.copy_((split.targets + event.shift_labels) % classes)
        if event.rotate:
            split.inputs.copy_(rotated(split.inputs, event.rotate))
    if event.label_noise:
        corrupt(task.train.targets, event.label_noise, classes, stream(seed, "label noise", round(1e6 * event.epoch)))


def corrupt(targets: Tensor, fraction: float, classes: int, generator: torch.Generator) -> None:
    """Gives a fraction of the targets (n,) another label, with every other label equally likely."""
    count = round(fraction * len(targets))
    chosen = torch.randperm(len(targets), generator=generator)[:count].to(targets.device)
    moves = torch.randint(1, classes, (count,), generator=generator).to(targets.device)
    targets[chosen] = (targets[chosen] + moves) % classes
