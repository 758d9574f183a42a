"""Start-up configuration. Flags override the environment; a missing secret is an error."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_BALANCE_PAISE = 10_00_000_00  # ₹10,00,000


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a simulator."""

    host: str
    port: int
    ready_file: str | None
    key_id: str
    key_secret: str
    account_number: str
    webhook_url: str
    webhook_secret: str
    webhook_previous_secret: str
    balance_paise: int
    speed: float
    seed: int


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sandbox.razorpayx", description="A RazorpayX simulator.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument("--ready-file", help='file to write when listening: {"url": ..., "pid": ...}')
    for name, text in (
        ("key-id", "API key id"),
        ("key-secret", "API key secret"),
        ("account-number", "our debit account"),
        ("webhook-url", "URL for webhooks; empty = none"),
        ("webhook-secret", "signs webhooks"),
        ("webhook-previous-secret", "the previous secret, default the same"),
        ("balance-paise", f"opening balance, default {DEFAULT_BALANCE_PAISE}"),
        ("speed", "multiplies the clock, default 1"),
        ("seed", "selects payouts with odd nulls, default 1"),
    ):
        variable = _variable(name)
        parser.add_argument(f"--{name}", default=os.environ.get(variable), help=f"{text} (${variable})")
    return parser


def _variable(flag: str) -> str:
    return "SIM_" + flag.replace("-", "_").upper()


def load(argv: Sequence[str] | None = None) -> Config:
    """Read flags and environment. Reports all errors and exits with status 2 if there are any."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    required = ["key_id", "key_secret", "account_number"]
    if arguments.webhook_url:
        required.append("webhook_secret")
    faults = [f"SIM_{name.upper()} is not set" for name in required if not getattr(arguments, name)]
    balance = _number(arguments.balance_paise, DEFAULT_BALANCE_PAISE, "SIM_BALANCE_PAISE", faults, whole=True)
    speed = _number(arguments.speed, 1.0, "SIM_SPEED", faults, above_zero=True)
    seed = _number(arguments.seed, 1, "SIM_SEED", faults, whole=True)
    if arguments.webhook_url and not arguments.webhook_url.startswith(("http://", "https://")):
        faults.append("SIM_WEBHOOK_URL must start with http:// or https://")
    if faults:
        parser.error("; ".join(faults))
    return Config(
        host=arguments.host,
        port=arguments.port,
        ready_file=arguments.ready_file,
        key_id=arguments.key_id,
        key_secret=arguments.key_secret,
        account_number=arguments.account_number,
        webhook_url=arguments.webhook_url or "",
        webhook_secret=arguments.webhook_secret or "",
        # If the secret never changed, the previous one is the same.
        webhook_previous_secret=arguments.webhook_previous_secret or arguments.webhook_secret or "",
        balance_paise=int(balance),
        speed=speed,
        seed=int(seed),
    )


def _number(
    text: str | None,
    default: float,
    name: str,
    faults: list[str],
    *,
    whole: bool = False,
    above_zero: bool = False,
) -> float:
    if not text:
        return default
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        faults.append(f"{name} is not a {'whole ' if whole else ''}number: {text!r}")
        return default
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        faults.append(f"{name} must be {'above' if above_zero else 'at least'} 0")
        return default
    return value
