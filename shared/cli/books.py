"""Questions to the books."""

import re
import sys

import click

from shared.cli.proof import logs_aside
from shared.errors import Unavailable

HEAD = re.compile(r"([1-9]\d{0,17}):([0-9a-fA-F]{64})")


def _heads(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[tuple[int, str]]:
    matches = [HEAD.fullmatch(one) for one in given]
    if not all(matches):
        raise click.BadParameter("a block's number, a colon, and its hash of 64 hexadecimal digits")
    return [(int(match[1]), match[2].lower()) for match in matches if match]


@click.command()
@click.option("--ids", default=20, show_default=True, help="How many ids to show per finding.")
@click.option(
    "--head",
    "heads",
    metavar="BLOCK:HASH",
    multiple=True,
    callback=_heads,
    help="A head of the seals that was kept elsewhere: nothing up to it may be missing.",
)
def check(ids: int, heads: list[tuple[int, str]]) -> None:
    """Prove the promises from the database; exit 1 and name what does not add up."""
    from shared import checks, sealing

    result = checks.run(heads)
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
    if result.unsealed:
        click.echo(f"\n{_of_unsealed(result.unsealed, result.holds)}")
    if head := sealing.head():
        click.echo(f"\nHead of the seals: {head}")
    if not result.holds:
        sys.exit(1)


def _of_unsealed(number: int, holds: bool) -> str:
    """How far the seals reach. What holds is sealed now, and not before: every question comes first, or the
    seal would make good what was changed, and hide what lay unsealed for too long.
    """
    now = "They are sealed now." if holds and _sealed() >= number else "They wait for their seal."
    return (
        f"Without a seal until now: the {number:,} newest rows. A change of them before now "
        f"shows only where it contradicts something else. {now}"
    )


def _sealed() -> int:
    from shared import sealing

    try:
        with logs_aside():
            return sealing.seal()
    except Unavailable:  # as on a server that is read-only
        return 0


COMMANDS = (check,)
