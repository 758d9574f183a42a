"""Temporary data about a whole file, however long: kept on disk and deleted with the process."""

import hashlib
import sqlite3
import unicodedata
from contextlib import AbstractContextManager
from types import TracebackType

CACHE_KIB = 8192  # SQLite's memory for it

CREATE_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE named (reference BLOB PRIMARY KEY, first INTEGER, last INTEGER) WITHOUT ROWID;
    CREATE TABLE spent (user_id BLOB PRIMARY KEY, coins INTEGER) WITHOUT ROWID;
"""


class Scratch(AbstractContextManager["Scratch"]):
    """A private SQLite database without a file name: no other process sees it, and no crash
    leaves it behind.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.executescript(CREATE_TABLES)
        self._database.execute("BEGIN")  # never committed: nothing in it must last

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add_reference(self, reference: str, line: int) -> None:
        """Record the reference of the row at `line`."""
        self._database.execute(
            "INSERT INTO named VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
            (_digest(normalized(reference)), line, line),
        )

    def other_line(self, reference: str, line: int) -> int | None:
        """Another line with the same reference as the row at `line`, or None."""
        query = "SELECT first, last FROM named WHERE reference = ?"
        first, last = self._database.execute(query, (_digest(normalized(reference)),)).fetchone()
        return None if first == last else int(last if line == first else first)

    def spent_coins(self, user_id: str) -> int:
        """The coins that earlier rows of a dry run would debit from this user."""
        query = "SELECT coins FROM spent WHERE user_id = ?"
        row = self._database.execute(query, (_digest(user_id),)).fetchone()
        return int(row[0]) if row else 0

    def add_spent_coins(self, user_id: str, coins: int) -> None:
        """Add coins that a row of a dry run would debit."""
        self._database.execute(
            "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET coins = coins + excluded.coins",
            (_digest(user_id), coins),
        )


def normalized(reference: str) -> str:
    """A reference in the form in which it is compared: trimmed, in Unicode NFC."""
    return unicodedata.normalize("NFC", reference.strip())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
