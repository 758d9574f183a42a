"""Where a shell keeps the token of who signed in: in PAYOUTS_OPERATOR_TOKEN, or in a file of theirs alone."""

import os
import tempfile
from pathlib import Path

import click

VARIABLE = "PAYOUTS_OPERATOR_TOKEN"
FOR_OTHERS = 0o077


def given() -> str | None:
    """The token of this shell, if there is one. Raises ClickException when others can read its file."""
    if token := os.environ.get(VARIABLE, "").strip():
        return token
    path = _path()
    try:
        mode, token = path.stat().st_mode, path.read_text().strip()
    except OSError:
        return None
    if mode & FOR_OTHERS:
        raise click.ClickException(f"Others can read {path}: remove it, change your password, sign in again")
    return token or None


def keep(token: str) -> Path:
    """Write it where this user alone can read it; returns where."""
    path = _path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    Path(temporary).replace(path)
    return path


def forget() -> None:
    """Remove the file, if there is one."""
    _path().unlink(missing_ok=True)


def _path() -> Path:
    """As the XDG base directories have it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "payouts" / "operator-token"
