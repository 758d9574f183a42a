"""Files with personal data or secrets: only their owner can read them."""

import os
from pathlib import Path
from typing import TextIO


def create(path: Path, *, errors: str | None = None) -> TextIO:
    """Open a file to write text. A new file has mode 0600; an existing one keeps its mode. Raises OSError."""
    return open(path, "w", encoding="utf-8", errors=errors, newline="", opener=_private)


def recreate(path: Path, *, errors: str | None = None) -> TextIO:
    """Do the same after deleting what a killed run may have left under this name. Raises OSError."""
    path.unlink(missing_ok=True)
    return create(path, errors=errors)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
