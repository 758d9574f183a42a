"""`make env`: a .env from .env.example, its empty secrets filled in. Needs only Python itself."""

import base64
import secrets
import sys
from pathlib import Path

KEY_ID, BASIC_AUTH = "RAZORPAYX_KEY_ID", "FLOWER_BASIC_AUTH"
BYTES_32 = ("CERTIFICATE_KEY", "WEBHOOK_SIGNING_KEY")  # written in base64


def filled(example: str) -> str:
    """The text of .env.example with a fresh value behind every `NAME=` that has none."""
    return "".join(_line(line) for line in example.splitlines(keepends=True))


def _line(line: str) -> str:
    name, equals, value = line.strip().partition("=")
    if line.startswith("#") or not equals or value:
        return line
    secret = secrets.token_hex(24)
    shaped = {
        KEY_ID: "rzp_test_" + secret[:14],
        BASIC_AUTH: "admin:" + secret,
        **{key: base64.b64encode(secrets.token_bytes(32)).decode() for key in BYTES_32},
    }
    return f"{name}={shaped.get(name, secret)}\n"


def main() -> None:
    """Write .env, unless there is one: secrets in use are never thrown away."""
    target = Path(".env")
    if target.exists():
        sys.exit(".env is there already; remove it first if you want new secrets.")
    target.touch(mode=0o600)
    target.write_text(filled(Path(".env.example").read_text()))
    sys.stdout.write("Wrote .env\n")


if __name__ == "__main__":
    main()
