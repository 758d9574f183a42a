"""The `payouts` command: a subcommand for each process of the system and for each action of operators."""

import io
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
import structlog

from cli import (
    checks,
    imports,
    keys,
    mail,
    operations,
    operators,
    processes,
    proof,
    proposals,
    reconcile,
    review,
    wallets,
    webhooks,
)
from shared.errors import PayoutsError, SettingsError


class _PlainErrors(click.Group):
    """A group that prints errors as sentences, not as tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise click.ClickException(str(error)) from None
        except PayoutsError as error:
            from shared.db import causes

            raise click.ClickException(causes.describe(error)) from None
        except KeyboardInterrupt:
            click.echo("\nStopped. Completed steps stay; the current one was not done.", err=True)
            sys.exit(128 + signal.SIGINT)


@click.group(cls=_PlainErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Coin Payouts: turn coins into rupees, never twice."""
    _tolerate_encoding()
    context.call_on_close(_log_to_stderr())


def _tolerate_encoding() -> None:
    """Print ? for a character that the terminal's encoding lacks, such as ₹, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _log_to_stderr() -> Callable[[], None]:
    """Log to stderr, because stdout is for the command's result. Returns a function that restores the log.

    The long-running processes configure their own logs when they start.
    """
    previous = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return lambda: structlog.configure(**previous)


for _module in (
    processes,
    operations,
    review,
    wallets,
    keys,
    operators,
    proposals,
    webhooks,
    mail,
    imports,
    checks,
    reconcile,
    proof,
):
    for _command in _module.COMMANDS:
        main.add_command(_command)


def _add_sandbox() -> None:
    """Add the commands for a laptop if they are installed; a production image has none."""
    try:
        from sandbox.cli import demo, sandbox
    except ModuleNotFoundError as error:
        if error.name != "sandbox":
            raise
        return
    main.add_command(sandbox)
    main.add_command(demo)


_add_sandbox()
