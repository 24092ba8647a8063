"""The values of a rule's hyperparameters, and how meta-steps move them.

symbol  name            shape    meaning
M       members         ()       independent trainings side by side
S       sets            ()       values a hyperparameter has
h       values          (M, S)   by name, tuned or not
d       hypergradients  (M, S)   by tuned name
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from oho.meta import Memory, MetaRule, admit, check_finite, meta_step
from oho.rules import Rule
from oho.saved_state import copied, load_tensors


class Tuning:
    """`values`, the last `hypergradients`, and the meta-rule's memory."""

    def __init__(self, rule: Rule, meta: MetaRule, *, members: int | None, sets: int, like: Tensor):
        self.rule, self.meta = rule, meta
        self._members, self._shape = members, (members or 1, sets)
        self.values = {name: self._admitted(name, self._of_rule(getattr(rule, name)), like) for name in rule.names}
        self.hypergradients = {name: like.new_full(self._shape, torch.nan) for name in rule.tune}
        self._memory: dict[str, Memory] = {name: {} for name in rule.tune}

    def assign(self, name: str, value: float | Tensor) -> None:
        """Sets a hyperparameter: a number, (S,) or (M, S).

        Raises:
            ValueError: for a name the rule lacks, a shape that does not fit, a value that is not finite, or a tuned one
                outside its bounds.
        """
        if name not in self.values:
            raise ValueError(f"{type(self.rule).__name__} has no {name!r}; it has {', '.join(self.values)}")
        self.values[name] = self._admitted(name, value, self.values[name])

    def step(self, hypergradients: dict[str, Tensor]) -> Tensor:
        """Makes a step of the meta-rule for each member where all of it is finite; returns where that was, (M,)."""
        self.hypergradients = hypergradients
        stepped = {
            name: meta_step(self.meta, name, self.values[name], gradient, self._memory[name])
            for name, gradient in hypergradients.items()
        }
        watched = [*hypergradients.values(), *(value for value, _ in stepped.values())]
        finite = torch.cat(watched, dim=-1).isfinite().all(-1, keepdim=True)
        everywhere = bool(finite.all())
        for name, (value, memory) in stepped.items():
            if not everywhere:
                value = torch.where(finite, value, self.values[name])
                before = self._memory[name]
                memory = {
                    key: torch.where(finite, entry, before.get(key, torch.zeros_like(entry)))
                    for key, entry in memory.items()
                }
            self.values[name], self._memory[name] = value, memory
        return finite[:, 0]

    def state(self) -> dict[str, Any]:
        """Returns copies of everything."""
        return {
            "hyper": copied(self.values),
            "hypergradient": copied(self.hypergradients),
            "memory": {name: copied(memory) for name, memory in self._memory.items()},
        }

    def loaded(self, state: dict[str, Any], device: torch.device) -> Tuning:
        """Returns another one like this with what `state` holds.

        Raises:
            ValueError: for names, shapes, dtypes or a memory of another rule or meta-rule.
        """
        other = copy.copy(self)
        other.values = load_tensors("hyper", state, self.values, device)
        other.hypergradients = load_tensors("hypergradient", state, self.hypergradients, device)
        other._memory = self._loaded_memory(state, device)
        return other

    def _loaded_memory(self, state: dict[str, Any], device: torch.device) -> dict[str, Memory]:
        """Returns the meta-rule's memory; its keys are those that the rule writes, or none before its first step."""
        if set(state["memory"]) != set(self.rule.tune):
            raise ValueError(f"state: memory of {sorted(state['memory'])}, this optimizer tunes {self.rule.tune}")
        memory = {name: copied(entries, device) for name, entries in state["memory"].items()}
        for name, hypergradient in self.hypergradients.items():
            _, expected = self.meta.step(name, torch.zeros_like(hypergradient), {})
            if memory[name] and set(memory[name]) != set(expected):
                kind, theirs = type(self.meta).__name__, ", ".join(memory[name])
                raise ValueError(f"state: the meta-rule's memory of {name} has {theirs}, {kind} keeps {sorted(expected)}")
        return memory

    def _of_rule(self, value: float | Tensor) -> float | Tensor:
        """Returns a rule's own value: with members, its one axis is theirs."""
        if self._members is not None and isinstance(value, Tensor) and value.shape == (self._members,):
            return value.unsqueeze(-1)
        return value

    def _admitted(self, name: str, value: float | Tensor, like: Tensor) -> Tensor:
        """Returns (M, S) of `like`'s dtype and device, checked to be finite and, if it is tuned, within the bounds."""
        given = torch.as_tensor(value, dtype=like.dtype).detach()
        check_finite(name, given)  # where it is: a GPU is not waited for
        try:
            values = given.to(like.device).expand(self._shape).clone()
        except RuntimeError:
            shape = tuple(given.shape)
            raise ValueError(f"{name}: shape {shape} does not fit (members, sets) = {self._shape}") from None
        return admit(self.meta, name, values) if name in self.rule.tune else values
