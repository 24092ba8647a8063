"""Streams of a GPU that is not there: which operations they order, and which of these race."""

from contextlib import contextmanager

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FakeStream:
    """A stream with a vector clock: how much of each stream's work has been done when its next operation begins."""

    def __init__(self, device=None):
        self.clock = {}
        self.is_captured = False

    def _wait(self, clock):
        self.is_captured = True
        self.clock = {key: max(self.clock.get(key, 0), clock.get(key, 0)) for key in {*self.clock, *clock}}

    def wait_stream(self, other):
        assert other.is_captured, "a capture waits for a stream that has no part in it"
        self._wait(other.clock)

    def record_event(self):
        assert self.is_captured
        return dict(self.clock)

    def wait_event(self, event):
        self._wait(event)

    def tick(self):
        self.clock[self] = self.clock.get(self, 0) + 1

    def has_seen(self, stream, tick):
        return self.clock.get(stream, 0) >= tick


class Races(TorchDispatchMode):
    """Runs operations as usual, and fails if two of them touch the same number, one writing it, in no order."""

    def __init__(self):
        super().__init__()
        self.own = FakeStream()
        self.own.is_captured = True
        self.streams = [self.own]
        self._last, self._kept, self.used = {}, [], set()

    @contextmanager
    def on(self, stream):
        self.streams.append(stream)
        try:
            yield
        finally:
            self.streams.pop()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        changed = []
        for place, argument in enumerate(operation._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = kwargs.get(argument.name, args[place] if place < len(args) else None)
                changed += [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        known = {tensor.untyped_storage()._cdata for tensor in given}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        made = [tensor for tensor in made if tensor.untyped_storage()._cdata not in known]
        if changed or made:  # and no view
            stream = self.streams[-1]
            stream.tick()
            self.used.add(stream)
            written = {id(tensor) for tensor in changed}
            for tensor in given:
                self._touch(tensor, stream, operation, writes=id(tensor) in written)
            for tensor in made:
                self._touch(tensor, stream, operation, writes=True)
        self._kept += made  # so that no other tensor takes its address
        return result

    def _touch(self, tensor, stream, operation, *, writes):
        if tensor.layout is not torch.strided:
            return
        storage, tick = tensor.untyped_storage()._cdata, stream.clock[stream]
        places = np.zeros((), dtype=int) + tensor.storage_offset()
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            places = places[..., None] + np.arange(size) * stride
        for place in np.unique(places).tolist():
            write, reads = self._last.get((storage, place), (None, {}))
            for other, then in ([write] if write else []) + (list(reads.items()) if writes else []):
                assert stream.has_seen(other, then), f"{operation} races for a tensor {tuple(tensor.shape)}"
            self._last[storage, place] = ((stream, tick), {}) if writes else (write, {**reads, stream: tick})

    def check_joined(self):
        for stream in self.used:
            assert self.own.has_seen(stream, stream.clock[stream]), "a stream's work has not been waited for"


@contextmanager
def fake_streams(monkeypatch):
    """Gives each side stream a fake one, and checks inside the block that no operations race and none is left unjoined."""
    races = Races()

    def begin(side, device):
        side._stream, side._read, side._is_behind = FakeStream(), [], False

    monkeypatch.setattr("oho.engines.side_stream.SideStream.__init__", begin)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: races.streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", races.on)
    with races:
        yield races
    races.check_joined()
