"""Rival: this system at commit 1b16977, before it worked in batches.

Its own code runs, from a work tree beside this one, with its own command line, its own simulator and the same
packages. Settings that it does not know have no effect on it.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bench import ours
from bench.service import Service

COMMIT = "1b16977"
CLI = "shared.cli"
NEEDED = "flask_limiter"  # which this system no longer needs


@cache
def missing() -> str | None:
    """Why it cannot run here; None if it can."""
    if importlib.util.find_spec(NEEDED) is None:
        return f"{NEEDED} not installed: `make bench` installs requirements-bench.lock"
    done = _git("cat-file", "-e", f"{COMMIT}^{{commit}}", check=False)
    return f"commit {COMMIT} is not in this clone: fetch the whole history" if done.returncode else None


@contextmanager
def worktree() -> Iterator[Path]:
    """A work tree of the commit, which is removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="coin-baseline-"))
    _git("worktree", "add", "--detach", "--force", str(directory), COMMIT)
    try:
        yield directory
    finally:
        _git("worktree", "remove", "--force", str(directory), check=False)
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running(settings: Mapping[str, str], *, workers: int = 1, api_workers: int = 1) -> Iterator[Service]:
    """Run the commit's stack."""
    with (
        worktree() as root,
        ours.running(
            settings, workers=workers, api_workers=api_workers, name=COMMIT, root=root, cli=CLI
        ) as service,
    ):
        yield service


def _git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], cwd=ours.ROOT, capture_output=True, text=True, check=check, timeout=120
    )
