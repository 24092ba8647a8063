"""Holds the numbers that a page quotes against the plain text of the report that it quotes.

`results/NAME/quoted.yaml` has, for each page, words of the page and those of `report.txt` that they were taken from, one
text or several, in which … stands for anything within a line; null stands for what no report says.  Both must have the same
numbers in the same order; the page may round them.
"""

import math
import re
from typing import NamedTuple

EPSILON = 1e-9
DIGITS = 3
"""The digits of a report's numbers, which leave out zeros at their end."""
NUMBER = re.compile(r"(?<![\w.])[-−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?(?:\s?%)?")
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL)


class Number(NamedTuple):
    """A number as it is written: its value and what its last digit is worth."""

    text: str
    value: float
    unit: float


def numbers_in(text):
    return [_number(found[0]) for found in NUMBER.finditer(text)]


def _number(text):
    plain = text.replace(",", "").replace("−", "-")
    share = plain.endswith("%")
    digits, _, exponent = plain.rstrip(" %").partition("e")
    decimals = len(digits.partition(".")[2])
    power = int(exponent or 0) - 2 * share
    return Number(text, float(digits) * 10.0**power, 10.0 ** (power - decimals))


def rounds(quoted, found):
    """Whether a page's number is the report's, with as many digits or fewer."""
    if quoted.unit == found.unit == 1:
        return quoted.value == found.value
    unit = found.unit
    if unit < 1 and found.value:
        unit = min(unit, 10.0 ** (math.floor(math.log10(abs(found.value))) + 1 - DIGITS))
    doubt = quoted.unit + (0 if unit == 1 else unit)
    return quoted.unit >= unit * (1 - EPSILON) and abs(quoted.value - found.value) <= doubt / 2 + EPSILON


def readable(page):
    """A page's text in one line, without code and addresses."""
    return " ".join(CODE.sub(" ", page).split())


def complaints(page, quotes, report):
    """What is wrong with a page, a line each: quotes that are not there or say another number, and numbers without one."""
    text, lines, spans = readable(page), report.splitlines(), []
    for quoted, source in quotes.items():
        words = readable(quoted)
        if text.count(words) != 1:
            yield f"{quoted!r} stands {text.count(words)} times in the page"
            continue
        spans.append((text.index(words), text.index(words) + len(words)))
        if source is not None:
            yield from _differences(words, source, lines)
    for found in NUMBER.finditer(text):
        if "." in found[0] and not any(start <= found.start() and found.end() <= end for start, end in spans):
            yield f"no quote has the {found[0]} of {text[max(0, found.start() - 40) : found.end() + 20]!r}"


def _differences(words, source, lines):
    sources = [source] if isinstance(source, str) else source
    for each in sources:
        pattern = re.compile(".*?".join(map(re.escape, re.split(r"\s*…\s*", each))))
        if not any(map(pattern.search, lines)):
            yield f"the report does not say {each!r}, which {words!r} quotes"
    quoted, found = numbers_in(words), [number for each in sources for number in numbers_in(each)]
    if len(quoted) != len(found) or not all(map(rounds, quoted, found)):
        yield f"{words!r} quotes {[each.text for each in found]}"
