"""What must be remembered of a whole file, however long it is: kept on disk, gone with the process."""

import hashlib
import sqlite3
import unicodedata
from contextlib import AbstractContextManager
from types import TracebackType

CACHE_KIB = 8192  # what SQLite keeps in memory of it

TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE named (reference BLOB PRIMARY KEY, first INTEGER, last INTEGER) WITHOUT ROWID;
    CREATE TABLE spent (user_id BLOB PRIMARY KEY, coins INTEGER) WITHOUT ROWID;
"""


class Scratch(AbstractContextManager["Scratch"]):
    """A private database of SQLite, without a name: nobody else sees it, no crash leaves it behind."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.executescript(TABLES)
        self._database.execute("BEGIN")  # and never a COMMIT: nothing of it is to last

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def name(self, reference: str, line: int) -> None:
        """A row at `line` has this reference."""
        self._database.execute(
            "INSERT INTO named VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
            (_digest(plain(reference)), line, line),
        )

    def other(self, reference: str, line: int) -> int | None:
        """Another line that has the reference of the row at `line`."""
        query = "SELECT first, last FROM named WHERE reference = ?"
        first, last = self._database.execute(query, (_digest(plain(reference)),)).fetchone()
        return None if first == last else int(last if line == first else first)

    def spent(self, user_id: str) -> int:
        """The coins that rows before would have taken from this user."""
        query = "SELECT coins FROM spent WHERE user_id = ?"
        found = self._database.execute(query, (_digest(user_id),)).fetchone()
        return int(found[0]) if found else 0

    def spend(self, user_id: str, coins: int) -> None:
        """A row would take these coins."""
        self._database.execute(
            "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET coins = coins + excluded.coins",
            (_digest(user_id), coins),
        )


def plain(reference: str) -> str:
    """A reference as it is compared: blanks around it and the ways to write an é are no difference."""
    return unicodedata.normalize("NFC", reference.strip())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
