"""How inputs are damaged at random.  Whatever is fed in, by a user or by a damaged disk, is used or refused in one line: no
traceback, no hang, no code run.

The default suite tries 25 cases of each kind, always the same ones; `make test-fuzz` ten thousand new ones.
"""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FEW, MANY, REPORTS, RUNS = 25, 10_000, 50, 200
FUZZ = [pytest.mark.fuzz, pytest.mark.timeout(7_200)]
CASES = pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=FUZZ)])
LONGEST_LINE = 1_500


def tried(cases):
    """So many cases; the few of the default suite are always the same."""
    return settings(
        max_examples=cases, derandomize=cases == FEW, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def check_one_line(error, *starts):
    message = str(error)
    assert message.startswith(tuple(map(str, starts))), message
    assert message.isprintable(), message
    assert len(message) < LONGEST_LINE


NUMBERS = [
    "0", "-1", "0.5", "1e400", "-1e400", ".inf", "-.inf", ".nan", "9" * 30, "9" * 400, "9" * 5000, "1e-400", "0x1F", "1_0",
]  # fmt: skip
TEXTS = [
    "x", "é", "''", '"a\\nb"', '"\\0"', '"\\x1b[31m"', '"\\ud800"', '"\\u2028"', "x" * 20_000, "'{x}'", "fixed", "%s",
    "a" * 300, '"../../fair"', '"/"', '"."', '".."', "2001-01-01", "2001-01-01 12:30:45Z", "12:30:45",
    "|\n  x\n", ">\n x",
]  # fmt: skip
STRUCTURES = [
    "", "~", "null", "true", "[]", "{}", "[1, [2]]", "{name: fixed}", "{name: [fixed]}", "{name: {a: 1}}", "{? [a, b] : c}",
    "{null: 1}", "{1: 2}", "{<<: {name: fixed}}", "[" * 400 + "]" * 400, "[" * 5_000, "{a: " * 400 + "}" * 400, "? a\n: b",
    "&a [*a]", "&a {b: *a}", "&a", "*a", "<<: *a", "&a fixed", "{<<: *a}", "[*a, *a]", "{{a: 1}: 2}",
    "!!python/object/apply:os.system ['touch evil']", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!int x",
    "!!float x", "!!str 1", "!!timestamp x", "!unknown x", "!unknown [x]", "!!null x", "!!bool x", "!!merge x", "!!map x",
]  # fmt: skip
MARKS = [
    "---\n", "\n---\na: 1\n", "\n...\n", "%YAML 9.9\n---\n", "%TAG ! x\n", "\t", "\ufeff", "\0", "\x07", "\r", "\x85", ": ",
    "#",
]  # fmt: skip
TENFOLD = ", ".join(f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghij"))
BOMB = f"{{a: &a [1], {TENFOLD}}}"
"""Aliases of aliases: a thousand million values."""
CHARACTERS = st.characters()
YAML = st.one_of(
    *map(st.sampled_from, (NUMBERS, TEXTS, STRUCTURES, [*MARKS, BOMB])),
    st.text(CHARACTERS, max_size=8), st.integers().map(str), st.floats().map(str),
)  # fmt: skip
YAML_TOKEN = re.compile(r"[^\s{}\[\],:]+")
JSON = st.one_of(
    st.sampled_from([
        "null", "true", '""', "{}", "[]", "[null]", "[[1]]", '{"name": 1}', "-1", "0", "0.5", "1e400", "-1e400", "NaN",
        "Infinity", "-Infinity", "9" * 30, "9" * 400, "9" * 5000, "1e300", "1e-320", "[" * 100 + "]" * 100, "[" * 100_000,
        '{"a":' * 400 + "1" + "}" * 400, '"\\ud800"', '"\\u0000"', '"\\n"', '"\\u001b[31m"', '"../../x"', '"/"', '"2026"',
        '"$x$ $\\\\frac"', '"<b>#x*_$"', '"' + "x" * 5_000 + '"', '"oho-full"', '"momentum"',
    ]),
    st.text(max_size=6).map(json.dumps), st.floats().map(json.dumps), st.integers().map(str),
)  # fmt: skip
JSON_TOKEN = re.compile(r'"[^"]*"|[^\s{}\[\],:"]+')
PLACES = st.floats(0, 1, exclude_max=True)


@st.composite
def mutated(draw, text, token_pattern, values):
    """A text of which tokens and lines are changed, dropped or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        tokens, lines = list(token_pattern.finditer(text)), text.splitlines(keepends=True)
        if not tokens:
            break
        token, other = (tokens[int(draw(PLACES) * len(tokens))] for _ in range(2))
        line = int(draw(PLACES) * len(lines))
        how = draw(st.sampled_from(["token"] * 6 + ["swap", "insert", "drop line", "double line", "cut"]))
        if how == "drop line":
            text = "".join(lines[:line] + lines[line + 1 :])
        elif how == "double line":
            text = "".join(lines[: line + 1] + lines[line:])
        else:
            new = {"swap": other.group(), "cut": ""}[how] if how in ("swap", "cut") else draw(values)
            rest = {"insert": token.start(), "cut": len(text)}.get(how, token.end())
            text = text[: token.start()] + new + text[rest:]
    return encoded(text)


@st.composite
def damaged(draw, content):
    """Bytes, a few of which are changed, dropped or added."""
    for _ in range(draw(st.integers(1, 4))):
        place = int(draw(PLACES) * (len(content) + 1))
        end = place + draw(st.sampled_from([0, 1, 1, 1, 8, 10_000]))
        content = content[:place] + draw(st.binary(max_size=4)) + content[end:]
    return content


def encoded(text):
    return text.encode("utf-8", "surrogatepass")
