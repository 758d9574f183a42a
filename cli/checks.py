"""Integrity checks of the database."""

import re
import sys

import click

from cli.proof import logs_to_stderr
from shared.errors import Unavailable

HEAD_PATTERN = re.compile(r"([1-9]\d{0,17}):([0-9a-fA-F]{64})")


def _parse_heads(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, str]]:
    matches = [HEAD_PATTERN.fullmatch(value) for value in values]
    if not all(matches):
        raise click.BadParameter("use a block's number, a colon, and its hash of 64 hexadecimal digits")
    return [(int(match[1]), match[2].lower()) for match in matches if match]


@click.command()
@click.option("--ids", default=20, show_default=True, help="How many ids to show per finding.")
@click.option(
    "--head",
    "heads",
    metavar="BLOCK:HASH",
    multiple=True,
    callback=_parse_heads,
    help="A head of the seals that you stored elsewhere: no block up to it may be missing.",
)
def check(ids: int, heads: list[tuple[int, str]]) -> None:
    """Check the system's promises in the database; exit 1 and list what does not hold."""
    from shared.proof import checks, sealing

    result = checks.run(heads)
    for name, value in result.totals.items():
        click.echo(f"{name:12} {value:>15,}")
    broken = {finding.check for finding in result.findings}
    for item in checks.ALL_CHECKS:
        click.echo(f"{'BROKEN' if item in broken else 'holds ':6}  promise {item.promise}: {item.invariant}")
    for finding in result.findings:
        more = f" and {len(finding.ids) - ids} more" if len(finding.ids) > ids else ""
        click.echo(f"\n{finding.check.invariant}: violated by {', '.join(finding.ids[:ids])}{more}", err=True)
    if result.on_hold:
        click.echo(f"\nOn hold, waiting for a decision: {', '.join(result.on_hold[:ids])}")
    if result.unread_webhooks:
        click.echo(f"\nWebhooks that we could not interpret: {', '.join(result.unread_webhooks[:ids])}")
    if result.unsealed:
        click.echo(f"\n{_describe_unsealed(result.unsealed, result.holds)}")
    if head := sealing.head():
        click.echo(f"\nHead of the seals: {head}")
    if not result.holds:
        sys.exit(1)


def _describe_unsealed(number: int, holds: bool) -> str:
    """Describe the rows without a seal, and seal them if all checks hold.

    Sealing comes after the checks: earlier, it would legitimise a manipulated row, and hide rows that were
    left unsealed for too long.
    """
    state = "They are sealed now." if holds and _seal() >= number else "They are not sealed yet."
    return (
        f"The {number:,} newest rows had no seal until now. An earlier change to them "
        f"shows only if it contradicts other rows. {state}"
    )


def _seal() -> int:
    from shared.proof import sealing

    try:
        with logs_to_stderr():
            return sealing.seal()
    except Unavailable:  # for example on a read-only server
        return 0


COMMANDS = (check,)
