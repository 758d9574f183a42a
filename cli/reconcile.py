"""Reconciliation with the provider, on demand."""

import sys
from datetime import datetime
from pathlib import Path

import click

from cli.actor import operator_action
from shared.roles import Permission

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
EXIT_CODES = {"clean": 0, "exceptions": 1, "incomplete": 2}


@click.command()
@click.option("--from", "begins", type=click.DateTime(FORMATS), help="Start in IST. [default: yesterday]")
@click.option(
    "--to", "ends", type=click.DateTime(FORMATS), help="End in IST, exclusive. [default: a day later]"
)
@click.option(
    "--output",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Directory for the list (CSV) and the report. [default: current]",
)
@operator_action(Permission.RECONCILE, "reconcile", audit_params=("begins", "ends"))
def reconcile(begins: datetime | None, ends: datetime | None, output: Path, name: str) -> None:
    """Reconcile with RazorpayX: exit 0 if both sides agree, 1 with exceptions, 2 if incomplete."""
    from shared.clock import INDIA
    from shared.providers.clients import client
    from shared.reconciliation import days, report

    in_india = [moment.replace(tzinfo=INDIA) if moment else None for moment in (begins, ends)]
    result = days.run(client(), *in_india)
    if result.outcome == "incomplete":
        click.echo(f"RazorpayX's lists could not be read completely: {result.detail}", err=True)
        click.echo("No record was opened and no file was written. Try again later.", err=True)
        sys.exit(EXIT_CODES[result.outcome])
    paths = report.write_files(result, output)
    click.echo(report.page_text(result))
    for path in paths:
        click.echo(f"Wrote {path}", err=True)
    sys.exit(EXIT_CODES[result.outcome])


COMMANDS = (reconcile,)
