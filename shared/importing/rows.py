"""Read an import file row by row, with only one line in memory."""

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
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # characters that spreadsheets add
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_LINE_CHARACTERS = 10_000  # the longest good row has about a thousand


class Unreadable(BadRequest):
    """The whole file cannot be used."""

    def __init__(self, error: str, details: str) -> None:
        super().__init__(error, details, code="unreadable_file")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its first line (from 1), its cells by column, and its end as a byte offset in the file.

    `cells` is None if their number differs from the header's.
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
    """A file that is read several times: first for its references, then for its rows."""

    def __init__(self, file: BinaryIO) -> None:
        if not file.seekable():
            raise Unreadable("The file cannot be read twice", "Give a file, not a pipe")
        self._file = file
        self._stamp = _file_stamp(file)
        self.size = self._stamp[0]  # bytes

    def rows(self) -> Iterator[Row]:
        """All rows from the beginning, without the header and blank lines. Raises Unreadable, OSError.

        Bytes that are not UTF-8 become surrogates, so that the row's own check rejects them with its line
        number.
        """
        self._file.seek(0)
        if self._file.read(2) in UTF_16_MARKS:
            raise Unreadable("The file is not UTF-8", "It is UTF-16. Save it as CSV in UTF-8")
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
                if _file_stamp(self._file) != self._stamp:
                    raise Unreadable("The file has changed", "It was changed while it was read")
                if cells is None:
                    return
                if cells:
                    yield Row(line, _cells_by_column(columns, cells), self._file.tell())
        except csv.Error as error:
            raise Unreadable("The file is not CSV", f"Line {line}: {error}") from None
        finally:
            text.detach()


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARACTERS:
            raise Unreadable(
                "The file has a line that is too long",
                f"Line {number} has more than {MAX_LINE_CHARACTERS} characters",
            )
        yield line


def _columns(header: list[str]) -> list[str]:
    names = [name.strip().strip(INVISIBLE).strip() for name in header]
    expected = f"The first line must name the columns: {','.join(COLUMNS)}"
    if not any(names):
        raise Unreadable("The file has no header", f"Its first line is empty. {expected}")
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for name in names for letter in name):
        raise Unreadable("The file is not UTF-8", "Save it as CSV in UTF-8")
    for name in names:
        if name not in COLUMNS:
            _raise_for_known_mistake(header, name, expected)
            shown = name.encode("ascii", "backslashreplace").decode()[:50]
            raise Unreadable(f"There is no column {shown!r}", expected)
        if names.count(name) > 1:
            raise Unreadable(f"The column {name} appears twice", expected)
    for name in COLUMNS:
        if name not in names:
            raise Unreadable(f"The column {name} is missing", expected)
    return names


def _raise_for_known_mistake(header: list[str], name: str, expected: str) -> None:
    """Explain a known mistake behind an unknown column. Raises Unreadable."""
    for separator, separator_name in SEPARATORS.items():
        if len(header) == 1 and separator in name:
            raise Unreadable(
                f"The columns are separated by {separator_name}", "Save the file as CSV with commas"
            )
    column = re.sub(r"[\W_]+", "_", name).strip("_").lower()
    if column in COLUMNS:
        raise Unreadable(f"The column {column} is spelled differently", expected)


def _cells_by_column(columns: list[str], cells: list[str]) -> dict[str, str] | None:
    return dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None


def _file_stamp(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
