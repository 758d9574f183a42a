"""Output of text that others wrote (ids, reasons, names), with invisible characters marked."""

import click

from shared.text.invisible import mark_invisible


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line for people. For output that programs read (a proof, a key), use `click.echo`."""
    click.echo(mark_invisible(text), err=err)
