"""How a command tells what others wrote: ids, reasons, names, with what is invisible in them named."""

import click

from shared.visible import visible


def say(text: str = "", *, err: bool = False) -> None:
    """A line for people. What a program reads (a proof, a key) is written as it is, by `click.echo`."""
    click.echo(visible(text), err=err)
