"""Cells of the lists that people open in a spreadsheet. Every list of ours goes through here."""

import re
import unicodedata
from itertools import takewhile

from shared import visible

FORMULAS = frozenset("=+-@")
# They look like one, or a spreadsheet makes one of them: also full-width and small signs are these (NFKC).
MINUS = frozenset("\N{MINUS SIGN}\N{EN DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}")
# Blanks, and what no eye sees: a spreadsheet may leave them out, and then the cell begins behind them.
UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
UNSEEN_LETTER = re.compile(f"[{visible.IGNORABLE}{visible.BLANKS}]")


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula. Amounts of ours begin with a digit or are negative."""
    unseen = "".join(takewhile(_is_unseen, cell))
    begins = cell[len(unseen) : len(unseen) + 1]
    is_formula = begins in MINUS or unicodedata.normalize("NFKC", begins)[:1] in FORMULAS
    # A spreadsheet may begin a new cell or row at these.
    return f"'{cell}" if is_formula or any(one in unseen for one in "\t\r\n") else cell


def _is_unseen(letter: str) -> bool:
    return UNSEEN_LETTER.match(letter) is not None or unicodedata.category(letter) in UNSEEN
