"""`python -m api.openapi.reference docs`: writes openapi.json and api.md there. A test says when they are old."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from api.app import create_app
from shared.settings import Settings

JSON = "application/json"


def document() -> dict[str, Any]:
    """The document of an API with every setting at its default."""
    # Whatever is set on this machine is not read, and nothing is connected to.
    settings = Settings.model_construct(redis_url=SecretStr("redis://localhost:6379/0"))
    made = create_app(settings)._get_spec()
    assert isinstance(made, dict), "it was asked for as JSON"
    return made


def written(made: dict[str, Any]) -> str:
    """The document as it stands in docs/openapi.json."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def main(directory: Path) -> None:
    """Write both files."""
    made = document()
    (directory / "openapi.json").write_text(written(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
