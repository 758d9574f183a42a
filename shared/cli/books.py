"""Questions to the books."""

import sys

import click


@click.command()
@click.option("--ids", default=20, show_default=True, help="How many ids to show per finding.")
def check(ids: int) -> None:
    """Prove the promises from the database; exit 1 and name what does not add up."""
    from shared import checks

    result = checks.run()
    for name, value in result.totals.items():
        click.echo(f"{name:12} {value:>15,}")
    broken = {finding.check for finding in result.findings}
    for one in checks.EVERY:
        click.echo(f"{'BROKEN' if one in broken else 'holds ':6}  promise {one.promise}: {one.truth}")
    for finding in result.findings:
        more = f" and {len(finding.ids) - ids} more" if len(finding.ids) > ids else ""
        click.echo(f"\n{finding.check.truth}: not so for {', '.join(finding.ids[:ids])}{more}", err=True)
    if result.needs_a_person:
        click.echo(f"\nWaiting for a person: {', '.join(result.needs_a_person[:ids])}")
    if result.unread_webhooks:
        click.echo(f"\nWebhooks that said nothing to us: {', '.join(result.unread_webhooks[:ids])}")
    if not result.holds:
        sys.exit(1)


COMMANDS = (check,)
