"""Proofs: certify a day, prove a withdrawal, verify a proof or a certificate."""

import contextlib
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import click

from shared.errors import BadRequest
from shared.text.private_files import create

_output = click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead.")


@click.command("close-day")
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="A day in IST. [default: yesterday]")
@_output
def close_day(day: datetime | None, output: Path | None) -> None:
    """Seal all rows and sign a day's totals. Repeating it returns the same certificate."""
    from shared.proof import certificates

    with logs_to_stderr():
        certificate = certificates.close_day(day.date() if day else None)
    _write(certificate, output)


@click.command("certificate-key")
def certificate_key() -> None:
    """Generate a CERTIFICATE_KEY, and print it with its public key for verification."""
    import base64
    import secrets

    from shared.proof import proofs

    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    click.echo(f"CERTIFICATE_KEY={secret}")
    click.echo(
        f"# for payouts verify --public-key: {proofs.public_key_text(proofs.private_key(secret))}", err=True
    )


@click.command()
@click.argument("withdrawal_id", metavar="ID")
@_output
def prove(withdrawal_id: str, output: Path | None) -> None:
    """Print the proof of a withdrawal, for its user or an auditor. It reveals nothing about others."""
    from shared.ids import parse_id
    from shared.proof import certificates

    parsed = parse_id(withdrawal_id)
    if parsed is None:
        raise BadRequest("Invalid id", "Use a withdrawal's id, which is a UUID", code="invalid_id")
    with logs_to_stderr():
        proof = certificates.prove(parsed)
    _write(proof, output)


@click.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--public-key", metavar="BASE64", help="The issuer's public key, from a trusted source.")
def verify(file: TextIO, public_key: str | None) -> None:
    """Verify a proof or a certificate without a database; print what it proves, or exit 1."""
    from shared.proof import proofs

    try:
        proven = proofs.verify(file.read(), public_key)
    except UnicodeDecodeError:
        raise proofs.NotProven("The file is not text") from None
    for row in proven.rows:
        click.echo("  ".join(f"{name}={_as_word(value)}" for name, value in row.items() if value is not None))
    for sentence in proven.sentences:
        click.echo(f"Proven: {sentence}")


@contextlib.contextmanager
def logs_to_stderr() -> Iterator[None]:
    """Send log lines to stderr, because stdout is one JSON document."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)


def _write(value: dict[str, Any], output: Path | None) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        with create(output) as file:
            file.write(text)
        click.echo(f"Wrote {output}", err=True)


COMMANDS = (close_day, certificate_key, prove, verify)
