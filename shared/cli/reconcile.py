"""What finance runs: our books against the provider's."""

import importlib
import sys
from datetime import datetime
from pathlib import Path

import click

from shared.cli.acting import acting
from shared.roles import Permission

FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
EXIT = {"clean": 0, "exceptions": 1, "incomplete": 2}


@click.command()
@click.option("--from", "begins", type=click.DateTime(FORMATS), help="IST, included. [default: yesterday]")
@click.option("--to", "ends", type=click.DateTime(FORMATS), help="IST, not included. [default: a day later]")
@click.option(
    "--output",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where the list (CSV) and the page go. [default: here]",
)
@acting(Permission.RECONCILE, "reconcile", tells=("begins", "ends"))
def reconcile(begins: datetime | None, ends: datetime | None, output: Path, name: str) -> None:
    """Compare our books with RazorpayX: exit 0 when they agree, 1 with exceptions, 2 if unreadable."""
    from shared.clock import INDIA
    from shared.reconciliation import papers

    # By name: only the worker's side may know the client.
    worker = importlib.import_module("worker.reconcile")
    in_india = [moment.replace(tzinfo=INDIA) if moment else None for moment in (begins, ends)]
    result = worker.run(*in_india)
    if result.outcome == "incomplete":
        click.echo(f"RazorpayX could not be read completely: {result.detail}", err=True)
        click.echo("No record was made and no file was written. Try again later.", err=True)
        sys.exit(EXIT[result.outcome])
    names = papers.write(result, output)
    click.echo(papers.page(result))
    for path in names:
        click.echo(f"Wrote {path}", err=True)
    sys.exit(EXIT[result.outcome])


COMMANDS = (reconcile,)
