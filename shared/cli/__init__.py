"""The `payouts` command: each process of the system is one of its words, and each thing operators do."""

import importlib
import io
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
import structlog

from shared.cli import (
    books,
    importing,
    keys,
    mail,
    notifications,
    operate,
    operators,
    processes,
    proof,
    proposals,
    reconcile,
    review,
    wallets,
)
from shared.errors import PayoutsError, SettingsError


class _Plainly(click.Group):
    """A group whose errors are sentences, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise click.ClickException(str(error)) from None
        except PayoutsError as error:
            from shared import causes

            raise click.ClickException(causes.sentence(error)) from None
        except KeyboardInterrupt:
            click.echo("\nStopped. What was done stays done; what was under way was not.", err=True)
            sys.exit(128 + signal.SIGINT)


@click.group(cls=_Plainly, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Coin Payouts: turns coins into rupees, never twice."""
    _replace_what_cannot_be_printed()
    context.call_on_close(_log_beside_the_answer())


def _replace_what_cannot_be_printed() -> None:
    """A terminal that knows no ₹ shows a ? for it: no command ends half way for a letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _log_beside_the_answer() -> Callable[[], None]:
    """Log to stderr: the answer on stdout is for a person, or the next command. Returns what ends that.

    The processes configure their logs themselves, when they have started.
    """
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return lambda: structlog.configure(**before)


for _room in (
    processes,
    operate,
    review,
    wallets,
    keys,
    operators,
    proposals,
    notifications,
    mail,
    importing,
    books,
    reconcile,
    proof,
):
    for _command in _room.COMMANDS:
        main.add_command(_command)


def _add_sandbox() -> None:
    """The laptop's commands, where they are installed; a production image has none."""
    try:
        commands = importlib.import_module("sandbox.cli")
    except ModuleNotFoundError as error:
        if error.name not in ("sandbox", "sandbox.cli"):
            raise
        return
    main.add_command(commands.sandbox)
    main.add_command(commands.demo)


_add_sandbox()
