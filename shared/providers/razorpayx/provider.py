"""The pure part of RazorpayX: its statuses, request bodies and signature. It makes no calls."""

import json

from shared.providers.answers import Outcome, ProviderEvent
from shared.providers.port import Headers
from shared.providers.razorpayx import answers, bodies
from shared.providers.razorpayx.signature import is_signed
from shared.settings import Settings, settings


class RazorpayX:
    """The `Provider` of RazorpayX."""

    name = "RazorpayX"
    code = "razorpayx"
    payout_id_prefix = "pout_"
    key_lifetime_days = 7.0  # razorpayx.md §3

    def identity(self) -> str:
        """Return our key and the address: under another merchant or mode, a resend would pay again."""
        return settings().razorpayx_identity

    def account(self) -> str:
        """Return the account that pays."""
        return settings().razorpayx_account_number

    def call_seconds(self) -> float:
        """Return the longest time that one call may take."""
        return settings().razorpayx_connect_seconds + settings().razorpayx_read_seconds

    def payout_request(self, *, attempt_id: str, fund_account_id: str, amount_paise: int) -> bytes:
        """Return the exact bytes of a payout request: built once, stored, sent unchanged."""
        return bodies.payout(
            settings=settings(),
            attempt_id=attempt_id,
            fund_account_id=fund_account_id,
            amount_paise=amount_paise,
        )

    def is_current(self, request: bytes) -> bool:
        """True if a stored payout request matches the settings of today."""
        return bodies.matches_settings(settings(), request)

    def account_of(self, request: bytes) -> str:
        """Return the account in a stored payout request."""
        return str(json.loads(request)["account_number"])

    def payee_of(self, request: bytes) -> str:
        """Return the fund account in a stored payout request."""
        return str(json.loads(request)["fund_account_id"])

    def outcome_of(self, status: str) -> Outcome:
        """Return the outcome that a payout status means."""
        return answers.outcome_of(status)

    def progress_of(self, status: str | None) -> int:
        """Return how far on its way a payout with this status is; 0 if that is unknown."""
        return answers.PROGRESS.get(status or "", 0)

    def statuses(self, *outcomes: Outcome) -> frozenset[str]:
        """Return the payout statuses with these outcomes."""
        return frozenset(status for status in answers.STATUSES if answers.outcome_of(status) in outcomes)

    def is_signed(self, settings: Settings, body: bytes, headers: Headers) -> bool:
        """True if the body is signed with our secret, or with the previous one while both are valid."""
        secrets = [settings.razorpayx_webhook_secret, settings.razorpayx_webhook_secret_previous]
        valid = [secret.get_secret_value() for secret in secrets if secret is not None]
        return is_signed(body, headers.get("X-Razorpay-Signature"), valid)

    def event_id(self, headers: Headers) -> str | None:
        """Return the id of a webhook, which is the same for each delivery."""
        return headers.get("X-Razorpay-Event-Id")

    def parse_event(self, body: bytes) -> ProviderEvent | None:
        """Parse a webhook; None if the body is not an event."""
        return answers.parse_event(body)
