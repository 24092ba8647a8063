"""What `oho-bench list NAME` says is what a configuration may hold."""

import pytest

from bench.command.option_help import describe_options
from bench.experiment.registries import METHODS, TASKS
from bench.experiment.yaml_file import ConfigError


@pytest.mark.parametrize("name", [*METHODS, *TASKS])
def test_every_option_is_told(name):
    model = METHODS[name].options if name in METHODS else type(TASKS[name].defaults)
    text = describe_options(name)
    assert all(f"\n  {key} " in text for key in model.model_fields)
    assert "a value" not in text
    assert "Pydantic" not in text


def test_choices_and_defaults_are_told():
    text = describe_options("multistep")
    assert "must be given            list of whole number" in text
    assert "[epoch]                  step | epoch" in text
    assert "sgd | momentum (momentum, nesterov) | adam (beta1, beta2) | adamw (beta1, beta2)" in text


def test_an_unknown_name_is_one_line():
    with pytest.raises(ConfigError, match="unknown method or task 'nope'; allowed: fixed, "):
        describe_options("nope")
