"""The file of an import, row by row. No more of it is in memory than one line."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from shared.errors import BadRequest

COLUMNS = ("user_id", "amount", "upi_id", "reference")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # what spreadsheets leave behind: nobody sees it
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_LINE = 10_000  # characters; the longest good row has about a thousand


class Unreadable(BadRequest):
    """The file as a whole cannot be used."""

    def __init__(self, error: str, details: str) -> None:
        super().__init__(error, details, code="unreadable_file")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it begins (from 1), its cells by column, and how many bytes of the file it ends after.

    Without `cells` it has more or fewer of them than the header.
    """

    line: int
    cells: dict[str, str] | None
    end: int

    @property
    def reference(self) -> str:
        return (self.cells or {}).get("reference", "")

    @property
    def user_id(self) -> str:
        return (self.cells or {}).get("user_id", "")


class Source:
    """A file that is read twice: its references first, then its rows."""

    def __init__(self, file: BinaryIO) -> None:
        if not file.seekable():
            raise Unreadable("The file cannot be read twice", "Give a file, not a pipe")
        self._file, self._stamp = file, _stamp(file)
        self.size = self._stamp[0]

    def rows(self) -> Iterator[Row]:
        """Every row from the beginning, without the header and blank lines. Raises Unreadable, OSError.

        What is not UTF-8 comes as surrogates, so that a row's own check refuses it and its line is known.
        """
        self._file.seek(0)
        if self._file.read(2) in UTF_16:
            raise Unreadable("The file is not UTF-8", "It is UTF-16: save it as CSV in UTF-8")
        self._file.seek(0)
        text = io.TextIOWrapper(
            self._file, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )  # fmt: skip
        records = csv.reader(_lines(text), strict=True)
        line = 1
        try:
            columns = _columns(next(records, []))
            while True:
                line = records.line_num + 1
                cells = next(records, None)
                if _stamp(self._file) != self._stamp:
                    raise Unreadable("The file has changed", "It was written to while it was read")
                if cells is None:
                    return
                if cells:
                    yield Row(line, _by_column(columns, cells), self._file.tell())
        except csv.Error as error:
            raise Unreadable("The file is not CSV", f"Line {line}: {error}") from None
        finally:
            text.detach()


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise Unreadable(
                "The file has a line that is too long", f"Line {number} has more than {MAX_LINE} characters"
            )
        yield line


def _columns(header: list[str]) -> list[str]:
    names = [name.strip().strip(INVISIBLE).strip() for name in header]
    expected = f"The first line names the columns: {','.join(COLUMNS)}"
    if not any(names):
        raise Unreadable("The file has no header", f"Its first line is empty. {expected}")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for name in names for letter in name):
        raise Unreadable("The file is not UTF-8", "Save it as CSV in UTF-8")
    for name in names:
        if name not in COLUMNS:
            _tell_what_is_near(header, name, expected)
            shown = name.encode("ascii", "backslashreplace").decode()[:50]
            raise Unreadable(f"There is no column {shown!r}", expected)
        if names.count(name) > 1:
            raise Unreadable(f"The column {name} stands twice", expected)
    for name in COLUMNS:
        if name not in names:
            raise Unreadable(f"The column {name} is missing", expected)
    return names


def _tell_what_is_near(header: list[str], name: str, expected: str) -> None:
    """Name the slip behind a column that there is not, where it is a known one. Raises Unreadable."""
    for sign, word in SEPARATORS.items():
        if len(header) == 1 and sign in name:
            raise Unreadable(f"The columns are separated by {word}", "Save it as CSV with commas")
    plain = re.sub(r"[\W_]+", "_", name).strip("_").lower()
    if plain in COLUMNS:
        raise Unreadable(f"The column {plain} is written in another way", expected)


def _by_column(columns: list[str], cells: list[str]) -> dict[str, str] | None:
    return dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None


def _stamp(file: BinaryIO) -> tuple[int, int]:
    known = os.fstat(file.fileno())
    return known.st_size, known.st_mtime_ns
