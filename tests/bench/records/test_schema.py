"""What a spec may say, as far as what reads it relies on it."""

import pytest

from bench.records.schema import SPEC, misfit, option_fits

FILE = {"file": "mine.py", "hash": "0" * 16, "place": "METHOD"}
MODULE = {"module": "mine", "hash": "0" * 16, "place": "METHOD"}


def spec(task=None, **method):
    budget = {"unit": "steps", "amount": 40}
    return {"task": {"name": "digits-mlp", **(task or {})}, "method": {"name": "mine", "label": "Mine", **method},
            "seed": 0, "budget": budget, "space": {"name": "fair"}, "device": "cpu"}  # fmt: skip


@pytest.mark.parametrize("origin", [None, FILE, MODULE])
def test_an_origin_is_a_file_or_a_module(origin):
    data = {"name": "mine", "origin": origin}
    assert misfit(spec({"origin": origin, "data": data}, origin=origin), SPEC) is None


@pytest.mark.parametrize(
    "origin",
    [
        {**FILE, "file": "../mine.py"}, {**FILE, "file": "a/mine.py"}, {**FILE, "hash": "../.."},
        {**MODULE, **FILE, "file": ""},
        {"file": "mine.py", "hash": "0" * 16}, {"module": "mine", "place": "METHOD"}, {**FILE, "place": 1}, "mine.py", {},
    ],
)  # fmt: skip
def test_an_origin_that_leads_elsewhere_is_refused(origin):
    assert misfit(spec(origin=origin), SPEC).startswith("method: ")
    assert misfit(spec(over={"name": "mine", "label": "Mine", "origin": origin}), SPEC).startswith("method: ")
    assert misfit(spec({"origin": origin}), SPEC).startswith("task: ")
    assert misfit(spec({"data": {"name": "mine", "origin": origin}}), SPEC).startswith("task: ")


OWN = {"order": 2, "source": ["a"], "epochs": [1, 2], "optimizer": "lion", "lr": {"start": 0.1}}


@pytest.mark.parametrize("name", OWN)
def test_options_of_a_plugin_may_have_any_type(name):
    assert misfit(spec(origin=FILE, **{name: OWN[name]}), SPEC) is None
    assert misfit(spec(**{name: OWN[name]}), SPEC).startswith("method: ")
    assert not option_fits(name, OWN[name])
