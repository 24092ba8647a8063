"""Refuses shocks that a method cannot take: unknown hyperparameters, and values that its options do not allow."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.experiment.methods import options_of
from bench.experiment.plugins import entry_of
from bench.experiment.shocks import Shock
from bench.experiment.spaces import QUANTILES, refusal
from bench.experiment.spec import Spec
from bench.experiment.yaml_file import Key, YamlFile
from bench.protocol import Kick, Options, Space


def check_shock(file: YamlFile, key: Key, shock: Shock, *, method: Spec, space: Space) -> None:
    """Raises `ConfigError` at the first kick of the shock, which stands at `key`, that the method does not take."""
    kicked = _Kicked(method, options_of(method.get("over", method)), space)
    for number, event in enumerate(shock.events):
        for kick in event.kicks:
            if problem := kicked.problem(kick):
                place = (*key, "events", number, "scale" if kick.value is None else "set", kick.name)
                raise file.error(place, problem)


@dataclass
class _Kicked:
    """A method's hyperparameters while the kicks of a shock follow one another."""

    method: Spec
    options: Options
    """Those of the method or, if it repeats another one, of that."""
    space: Space
    present: dict[str, list[float]] = field(default_factory=dict)
    """The values that kicks may have made of a hyperparameter, by name."""

    def problem(self, kick: Kick) -> str | None:
        """Returns why the method does not take the kick, or None after making it."""
        name, label = kick.name, self.method["label"]
        own = self.options.values() if entry_of("method", self.method).takes_kicks else {}
        if name not in own:
            has = f"it has: {', '.join(own)}" if own else "its hyperparameters cannot be changed"
            return f"method {label!r} has no hyperparameter {name!r}; {has}"
        if kick.value is None and self.options.clamps_kicks:
            return None
        values = self.present.get(name) or self._initial(name)
        for value in values:
            if reason := refusal(self.options, name, kick.of(value)):
                if kick.value is not None:
                    return f"{name} cannot be set to {kick.value:g} in {label!r}: {reason}"
                source = f" from space {self.space.name!r}" if own[name] is None else ""
                becomes = f"{value:g}{source} becomes {kick.of(value):g}"
                return f"{name} cannot be scaled by {kick.factor:g} in {label!r}: {reason}, and {becomes}"
        fresh = self._initial(name) if "over" in self.method else []  # of trials and members that start after the kick
        self.present[name] = [*map(kick.of, values), *fresh]
        return None

    def _initial(self, name: str) -> list[float]:
        """Returns the value at the start or, if it is open, values that stand for all that the space has."""
        value = self.options.values()[name]
        if value is not None:
            return [value]
        law = self.space.of(self.options.optimizer_name).sharing(self.options.shared_laws).hyperparameters[name]
        return [law.at(fraction) for fraction in QUANTILES]
