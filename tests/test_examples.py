"""The examples, run as a reader runs them."""

import difflib
import math
import re
from pathlib import Path

import programs
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBER = r"-?(?:\d+\.?\d*(?:e-?\d+)?|inf|nan)"


def printed_by(name, shorter=("", "")):
    """What an example prints, in which a shorter training may stand for its own."""
    text = (EXAMPLES / name).read_text()
    assert shorter[0] in text
    return programs.printed_by(text.replace(*shorter) if shorter[0] else text)


def numbers_after(words, text):
    found = [float(number) for number in re.findall(rf"{words} ({NUMBER})", text)]
    assert found, f"no {words!r} in: {text}"
    assert all(map(math.isfinite, found)), text
    return found


@pytest.mark.parametrize(("epochs", "reached"), [(15, 0.6), pytest.param(50, 0.2, marks=pytest.mark.slow)])
def test_online_wins_over_plain_from_the_same_poor_start(epochs, reached):
    shorter = ("range(1, 51)", f"range(1, {epochs + 1})")
    plain, online = printed_by("plain.py", shorter), printed_by("online.py", shorter)
    (before,), (after,) = numbers_after("test loss", plain), numbers_after("test loss", online)
    assert after < reached < 1 < before
    assert set(numbers_after("learning rate", plain)) == {1e-3}
    assert numbers_after("learning rate", online)[-1] > 0.03
    losses = numbers_after("validation loss", online)
    assert losses[-1] < numbers_after("validation loss", plain)[0]


def test_online_is_plain_but_for_a_few_lines():
    plain, online = ((EXAMPLES / name).read_text().splitlines() for name in ("plain.py", "online.py"))
    changed = [line for line in difflib.ndiff(plain, online) if line[0] in "-+" and line[2:].strip()]
    assert len([line for line in changed if line[0] == "-"]) <= 6
    assert len([line for line in changed if line[0] == "+"]) <= 6


@pytest.mark.parametrize("epochs", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_own_model_learns_and_resumes_where_it_was_saved(epochs):
    printed = printed_by("own_model_adam.py", ("EPOCHS = 12", f"EPOCHS = {epochs}"))
    lines = printed.splitlines()
    resumed = next(i for i, line in enumerate(lines) if line.startswith("resumed at step"))
    assert lines[resumed - 1] == lines[resumed + 1]
    losses = numbers_after("validation loss", printed)
    assert losses[-1] < losses[0]
    assert numbers_after("test loss", printed)[0] < 0.5
    values = [float(number) for row in re.findall(r"\[(.*?)\]", printed) for number in row.split(", ")]
    assert len(values) == 6 * len(losses)
    assert all(map(math.isfinite, values))
    assert len(set(values[-6:])) == 6  # each set has gone its own way


def test_wrong_labels_lose_their_weight():
    printed = printed_by("loss_hyper.py")
    plain, _, weighted = numbers_after("test loss", printed)
    assert weighted < 0.8 * plain
    assert numbers_after("right labels", printed)[-1] > 0.6 > 0.3 > numbers_after("wrong ones", printed)[-1]
    assert len(set(numbers_after("label smoothing", printed))) == 2


def test_training_images_get_the_noise_that_validation_images_have():
    plain, tuned = numbers_after("test loss", printed := printed_by("loss_hyper_cnn.py"))
    assert tuned < plain
    assert numbers_after("noise", printed)[0] == 0 < 0.2 < numbers_after("noise", printed)[-1] < 0.6
    assert len(set(numbers_after("label smoothing", printed))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["lightning", "accelerate"])
def test_online_wins_in_a_framework_by_a_few_lines(framework):
    pytest.importorskip(framework, reason="the extra `dev` is not installed")
    plain, online = (printed_by(f"{framework}_{kind}.py") for kind in ("plain", "online"))
    (before,), (after,) = numbers_after("test loss", plain), numbers_after("test loss", online)
    assert after < 0.5 < 2 < before
    assert numbers_after("learning rate", plain) == [1e-3]
    assert numbers_after("learning rate", online)[0] > 0.03  # what the framework's own monitor has seen
    assert re.findall(r"after \d+ steps", plain) == re.findall(r"after \d+ steps", online)


@pytest.mark.parametrize(("framework", "most"), [("lightning", 18), ("accelerate", 18)])
def test_a_framework_takes_few_lines(framework, most):
    plain, online = ((EXAMPLES / f"{framework}_{kind}.py").read_text().splitlines() for kind in ("plain", "online"))
    changed = [line for line in difflib.ndiff(plain, online) if line[0] in "-+" and line[2:].strip()]
    assert len([line for line in changed if line[0] == "+"]) <= most
