"""Files of this repository, by name. A name that matches nothing fails, so that a move cannot disable a test."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(*names: str) -> list[Path]:
    """Return the files with these names, sorted; a folder stands for all Python files below it.

    Each name is a file, a folder or a pattern (`api/*.py`), relative to the repository's root.
    """
    paths: set[Path] = set()
    for name in names:
        matches = [path for path in ROOT.glob(name.rstrip("/")) if "__pycache__" not in path.parts]
        matches = [file for path in matches for file in (path.rglob("*.py") if path.is_dir() else [path])]
        assert matches, f"no file is named {name}"
        paths.update(matches)
    return sorted(paths)
