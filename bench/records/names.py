"""What a name may be, and what becomes of it in an output that has less room for it or fewer characters.

a label of a method or a shock    `checked_label`; plans, specs, CSV, Parquet and the page keep it whole
the name of an experiment         `checked_experiment`: it is also a file's
of a plug-in, a space, a unit     `checked_name`
figures, tables, sentences        `shown`: a long one without its middle, and no two alike
Weights & Biases                  `clipped` to its limits, with a hash that keeps two names apart
files                             `file_name`: never a path, a device or longer than file systems take
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

LONGEST_LABEL, LONGEST_NAME = 200, 100
LONGEST_SHOWN = 44
"""The widest name that figures and tables show whole, in letters; one more than the longest of our own methods."""
LONGEST_FILE_NAME = 100
"""Without a suffix, in bytes; file systems take 255 with one, and temporary names are longer than the files'."""
EXPERIMENT = re.compile("[a-z0-9-]+")
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
"""Files that Windows does not have, whatever their suffix."""
NOT_IN_FILES = re.compile(r'[\x00-\x1f/\\*?"<>|]')
ELLIPSIS, WIDE = "…", frozenset("MWmw@%")
HASH_DIGITS = 6


def checked_label(label: Any) -> str:
    """Returns a label that every output can show: composed (NFC), with single spaces and none at its ends.

    Labels that look alike because their accents or spaces are written differently are the same label.  Raises ValueError
    for what is no label.
    """
    return _checked(label, LONGEST_LABEL)


def checked_name(name: Any) -> str:
    """Returns the name of a plug-in, a space or a unit unchanged.  Raises ValueError for what cannot be one."""
    _checked(name, LONGEST_NAME)
    return name


def checked_experiment(name: Any) -> str:
    """Returns an experiment's name.  Raises ValueError for what cannot be one."""
    if not (isinstance(name, str) and EXPERIMENT.fullmatch(name) and len(name) <= LONGEST_NAME):
        raise ValueError(f"an experiment's name has at most {LONGEST_NAME} lower-case letters, digits and dashes")
    if name in DEVICES:
        raise ValueError("Windows has no file of this name, so that no experiment can have it")
    return name


def _checked(text: Any, longest: int) -> str:
    if isinstance(text, str) and text.isprintable():
        composed = " ".join(unicodedata.normalize("NFC", text).split())
        if composed and len(composed) <= longest and not unicodedata.combining(composed[0]):
            return composed
    raise ValueError(f"one line of 1 to {longest} printable characters, not only spaces, is expected")


def width(text: str) -> float:
    """Returns about how wide a text is, in letters: Chinese, Japanese and Korean characters are twice as wide."""
    return sum(map(_width, text))


def _width(sign: str) -> float:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1.5 if sign in WIDE else 1


def shown(
    names: Iterable[str], longest: int = LONGEST_SHOWN, *, drawn: Callable[[str], str] = str
) -> dict[str, str]:  # fmt: skip
    """Returns what stands for each name where there is little room; `drawn` replaces what cannot be drawn.

    A name that fits stands for itself.  A longer one loses its middle; if that makes two alike, each has some digits of its
    hash there, so that a name has the same digits whatever stands beside it.
    """
    whole = {name: drawn(_readable(name)) for name in names}
    short = {name: _without_middle(text, longest) for name, text in whole.items()}
    counts = Counter(short.values())
    return {
        name: text if counts[text] == 1 or text == name else _without_middle(whole[name], longest, hash_of(name))
        for name, text in short.items()
    }


def clipped(name: str, longest: int) -> str:
    """Returns a name of at most so many characters, with digits of its hash in the place of its middle if it is longer."""
    if len(name) <= longest:
        return name
    middle = f"{ELLIPSIS}{hash_of(name)}{ELLIPSIS}"
    start, end = _halves(longest - len(middle))
    return f"{name[:start]}{middle}{name[len(name) - end :]}"


def file_name(name: str) -> str:
    """Returns what a file that belongs to a name is called, without a suffix.

    Colons, which stand in the name of every plug-in of a file, are dashes.  Where more has to be changed, a hash keeps two
    names apart.
    """
    plain = name.replace(":", "-")
    kept = NOT_IN_FILES.sub("-", plain).lstrip(".-").encode()[:LONGEST_FILE_NAME].decode(errors="ignore")
    if kept == plain and kept and kept.partition(".")[0].lower() not in DEVICES:
        return kept
    return f"{hash_of(name)}-{kept}".removesuffix("-")


def hash_of(name: str) -> str:
    """Returns a few digits that tell a name from others."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:HASH_DIGITS]


def _readable(name: str) -> str:
    """Returns a name in one line: older folders and records of plug-ins may hold any text."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def _without_middle(text: str, longest: int, digits: str = "") -> str:
    middle = f"{ELLIPSIS}{digits}{ELLIPSIS}" if digits else ELLIPSIS
    if width(text) <= longest:
        return f"{text} ({digits})" if digits else text
    start, end = _halves(longest - len(middle))
    return f"{_taken(text, start).rstrip()}{middle}{_taken(text[::-1], end)[::-1].lstrip()}"


def _halves(room: int) -> tuple[int, int]:
    return room - room // 2, room // 2


def _taken(text: str, longest: int) -> str:
    """Returns as much of a text's start as is no wider."""
    end, used = 0, 0.0
    while end < len(text) and (used := used + _width(text[end])) <= longest:
        end += 1
    return text[:end]
