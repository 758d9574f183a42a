"""Files with personal data or secrets: nobody but their owner reads them."""

import os
from pathlib import Path
from typing import TextIO


def create(path: Path, *, errors: str | None = None) -> TextIO:
    """Open a file to write text into it. A new one is 0600; one that was there keeps what its owner chose.

    Raises OSError.
    """
    return open(path, "w", encoding="utf-8", errors=errors, newline="", opener=_private)


def create_anew(path: Path, *, errors: str | None = None) -> TextIO:
    """The same, without what a run that was killed may have left under this name. Raises OSError."""
    path.unlink(missing_ok=True)
    return create(path, errors=errors)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
