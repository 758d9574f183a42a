"""The operator token of a shell: in PAYOUTS_OPERATOR_TOKEN, or in a private file."""

import os
import tempfile
from pathlib import Path

import click

ENVIRONMENT_VARIABLE = "PAYOUTS_OPERATOR_TOKEN"
OTHERS_MASK = 0o077


def read() -> str | None:
    """Return this shell's token, or None. Raises ClickException if others can read its file."""
    if token := os.environ.get(ENVIRONMENT_VARIABLE, "").strip():
        return token
    path = _path()
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except OSError:
        return None
    if mode & OTHERS_MASK:
        raise click.ClickException(
            f"Other users can read {path}. Remove it, change your password, and sign in again"
        )
    return token or None


def write(token: str) -> Path:
    """Write the token to a file that only this user can read; returns its path."""
    path = _path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    Path(temporary).replace(path)
    return path


def delete() -> None:
    """Delete the file, if it exists."""
    _path().unlink(missing_ok=True)


def _path() -> Path:
    """Return the path, following the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "payouts" / "operator-token"
