"""Who does it: `--as` names a person, and the books keep the name."""

from collections.abc import Callable
from getpass import getuser
from typing import Any

import click


def acting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--as`; it gets the `name`."""
    option = click.option(
        "--as", "name", default=getuser, metavar="NAME", help="Who does it. [default: the user of this shell]"
    )
    return option(command)


def actor_of(name: str) -> str:
    """How a person who works at a shell stands in the books."""
    return f"operator:{name}"
