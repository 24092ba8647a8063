"""Fonts for the characters of names.

Figures are set in DejaVu Sans, which comes with matplotlib, and the PDF's text in fonts that come with typst.  Where a name
has a character that DejaVu Sans lacks, an installed font that has it is used for that character; where none has it, its
code point is shown, since boxes look all alike.  For names of ordinary letters no installed font is looked at, so that
their figures are the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from reports import plain_matplotlib  # noqa: F401  isort: skip  the first of all that import matplotlib

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry
from matplotlib.ft2font import FT2Font

BASE = "DejaVu Sans"
PREFERRED = ("Noto Sans CJK", "Noto Sans", "Sans", "")
"""Parts of families' names, in the order in which these are tried."""
UNUSABLE = re.compile("cm[a-z]+10|STIXSize|STIXNonUnicode|Last ?Resort|DejaVu")
"""Fonts of formulas, whose characters have other places, and fonts of boxes; other DejaVu fonts have no more characters."""
VARIANTS = re.compile("[\\ufe00-\\ufe0f]")
"""Characters that are not drawn: they choose a form of the one before them."""


@dataclass(frozen=True)
class Fonts:
    """The fonts that names need besides the usual ones, by family and file, and the characters that no font has."""

    families: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()

    def drawn(self, name: str) -> str:
        """Returns a name with code points, as in `[4E2D 6587]`, in the place of characters that no font has."""
        if not self.missing:
            return name
        signs = f"[{re.escape(''.join(sorted(self.missing)))}]+"
        return re.sub(signs, lambda found: f"[{' '.join(f'{ord(sign):04X}' for sign in found[0])}]", VARIANTS.sub("", name))


NO_MORE = Fonts()
"""No fonts besides the usual ones."""


def fonts_for(names: Iterable[str]) -> Fonts:
    """Returns the fonts that names need."""
    signs = {sign for name in names for sign in VARIANTS.sub("", name) if ord(sign) > 0xFF and sign.isprintable()}
    if not signs:
        return NO_MORE
    base = font_manager.findfont(BASE)
    missing = {sign for sign in signs if ord(sign) not in _characters(str(base))}
    families, files = [], [str(base)]
    for entry in _installed() if missing else ():
        has = {sign for sign in missing if ord(sign) in _characters(str(entry.fname))}
        if has:
            families.append(entry.name)
            files.append(str(entry.fname))
            missing -= has
        if not missing:
            break
    return Fonts(tuple(families), tuple(files), frozenset(missing))


def _installed() -> list[FontEntry]:
    """Returns one upright font of each installed family, those first that are likely to have what others lack."""
    entries: dict[str, FontEntry] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and not UNUSABLE.match(entry.name):
            known = entries.setdefault(entry.name, entry)
            if abs(_weight(entry) - 400) < abs(_weight(known) - 400):
                entries[entry.name] = entry
    preference = {name: next(n for n, part in enumerate(PREFERRED) if part in name) for name in entries}
    return [entries[name] for name in sorted(entries, key=lambda name: (preference[name], name))]


def _weight(entry: FontEntry) -> int:
    weights = font_manager.weight_dict
    return entry.weight if isinstance(entry.weight, int) else weights.get(entry.weight, 400)


@cache
def _characters(path: str) -> frozenset[int]:
    """Returns the code points that a font has; none if it cannot be used, as fonts of coloured images cannot."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
