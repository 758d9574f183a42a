"""Proof of money: close a day, prove a withdrawal, check what somebody hands you."""

import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import click

from shared.errors import BadRequest
from shared.private_files import create

_output = click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead.")


@click.command("close-day")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="A day in India; by default yesterday.")
@_output
def close_day(day: datetime | None, output: Path | None) -> None:
    """Seal everything and sign a day's totals; the same certificate whenever it is asked for."""
    from shared import certificates

    with logs_aside():
        certificate = certificates.close_day(day.date() if day else None)
    _put(certificate, output)


@click.command("certificate-key")
def certificate_key() -> None:
    """Print a fresh key for CERTIFICATE_KEY, and its public half for those who verify."""
    import base64
    import secrets

    from shared import proofs

    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    click.echo(f"CERTIFICATE_KEY={secret}")
    click.echo(
        f"# for payouts verify --public-key: {proofs.public_text(proofs.private_key(secret))}", err=True
    )


@click.command()
@click.argument("withdrawal_id", metavar="ID")
@_output
def prove(withdrawal_id: str, output: Path | None) -> None:
    """Print the proof of a withdrawal: for its user, for an auditor; nothing of anybody else is in it."""
    from shared import certificates
    from shared.ids import parse_id

    parsed = parse_id(withdrawal_id)
    if parsed is None:
        raise BadRequest("Not an id", "A withdrawal's id is a UUID", code="invalid_id")
    with logs_aside():
        proof = certificates.prove(parsed)
    _put(proof, output)


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--public-key", metavar="BASE64", help="The issuer's key, as you know it from elsewhere.")
def verify(file: TextIO, public_key: str | None) -> None:
    """Check a proof or a certificate, without any database; say what it proves, or exit 1."""
    from shared import proofs

    try:
        proven = proofs.verify(file.read(), public_key)
    except UnicodeDecodeError:
        raise proofs.NotProven("The file is not text") from None
    for row in proven.rows:
        click.echo("  ".join(f"{name}={_word(value)}" for name, value in row.items() if value is not None))
    for sentence in proven.sentences:
        click.echo(f"Proven: {sentence}")


@contextlib.contextmanager
def logs_aside() -> Iterator[None]:
    """What is printed is one JSON document: log lines go to the other stream."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _word(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)


def _put(value: dict[str, Any], output: Path | None) -> None:
    told = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(told)
    else:
        with create(output) as file:
            file.write(told)
        click.echo(f"Wrote {output}", err=True)


COMMANDS = (close_day, certificate_key, prove, verify)
