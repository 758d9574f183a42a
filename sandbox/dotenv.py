"""`make env`: create .env from .env.example with fresh secrets. Needs only Python itself."""

import base64
import secrets
import sys
from pathlib import Path

KEY_ID = "RAZORPAYX_KEY_ID"
BASIC_AUTH = "FLOWER_BASIC_AUTH"
KEYS_OF_32_BYTES = ("CERTIFICATE_KEY", "WEBHOOK_SIGNING_KEY")  # in base64


def fill_secrets(example: str) -> str:
    """The text of .env.example with a fresh value for every empty `NAME=`."""
    return "".join(_line(line) for line in example.splitlines(keepends=True))


def _line(line: str) -> str:
    name, equals, value = line.strip().partition("=")
    if line.startswith("#") or not equals or value:
        return line
    secret = secrets.token_hex(24)
    special_forms = {
        KEY_ID: "rzp_test_" + secret[:14],
        BASIC_AUTH: "admin:" + secret,
        **{key: base64.b64encode(secrets.token_bytes(32)).decode() for key in KEYS_OF_32_BYTES},
    }
    return f"{name}={special_forms.get(name, secret)}\n"


def main() -> None:
    """Write .env unless it exists: secrets in use are never overwritten."""
    target = Path(".env")
    if target.exists():
        sys.exit(".env exists already. Remove it first if you want new secrets.")
    target.touch(mode=0o600)
    target.write_text(fill_secrets(Path(".env.example").read_text()))
    sys.stdout.write("Wrote .env\n")


if __name__ == "__main__":
    main()
