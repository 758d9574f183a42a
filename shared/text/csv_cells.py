"""Cells of CSV files that people open in a spreadsheet. All our CSV files use this module."""

import re
import unicodedata
from itertools import takewhile

from shared.text import invisible

FORMULA_CHARACTERS = frozenset("=+-@")
# They look like a minus, or a spreadsheet converts them to one; NFKC covers full-width and small signs.
MINUS_CHARACTERS = frozenset("\N{MINUS SIGN}\N{EN DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}")
# Blanks and invisible characters: a spreadsheet may drop them, and then the cell starts after them.
INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
INVISIBLE_CHARACTER = re.compile(f"[{invisible.IGNORABLE_CHARACTERS}{invisible.BLANK_CHARACTERS}]")


def escape_formula(cell: str) -> str:
    """Quote a cell that a spreadsheet could take for a formula."""
    prefix = "".join(takewhile(_is_invisible, cell))
    first = cell[len(prefix) : len(prefix) + 1]
    is_formula = first in MINUS_CHARACTERS or unicodedata.normalize("NFKC", first)[:1] in FORMULA_CHARACTERS
    # A spreadsheet may start a new cell or row at these.
    return f"'{cell}" if is_formula or any(separator in prefix for separator in "\t\r\n") else cell


def _is_invisible(char: str) -> bool:
    return INVISIBLE_CHARACTER.match(char) is not None or unicodedata.category(char) in INVISIBLE_CATEGORIES
