"""What `oho-bench list NAME` says is what a configuration may hold."""

import pytest

from bench.command.option_help import describe_options
from bench.experiment.registries import METHODS, TASKS


def test_every_option_is_told():
    for name in (*METHODS, *TASKS):
        entry = METHODS[name] if name in METHODS else TASKS[name]
        text = describe_options(entry)
        model = entry.options if name in METHODS else type(entry.defaults)
        assert [key for key in model.model_fields if f"\n  {key} " not in text] == [], name
        assert "a value" not in text, name
        assert "Pydantic" not in text, name


def test_choices_and_defaults_are_told():
    text = describe_options(METHODS["multistep"])
    assert "must be given            list of whole number" in text
    assert "[epoch]                  step | epoch" in text
    assert "sgd | momentum (momentum, nesterov) | adam (beta1, beta2) | adamw (beta1, beta2)" in text


@pytest.mark.parametrize("name", ["digits-mlp", "image-folder"])
def test_what_all_tasks_share_is_explained_for_each(name):
    text = " ".join(describe_options(TASKS[name]).split())
    assert text.count("`drift`, such as") == text.count("`data` names another data set") == 1
