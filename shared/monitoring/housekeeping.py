"""Periodic duties that no request triggers: warnings, spot checks, the provider's balance, old rows."""

from collections.abc import Callable

import structlog

from shared.access import idempotency
from shared.monitoring import old_webhooks, watchdog
from shared.notifications.mail import mails
from shared.notifications.webhooks import deliveries
from shared.proof import spot_checks
from shared.providers.port import ProviderClient

log = structlog.get_logger()


def run(client: ProviderClient) -> None:
    """Run every duty. A duty that fails does not stop the others; the first error is raised at the end."""

    def refresh_balance() -> None:
        balance = client.balance()
        if isinstance(balance, int):
            watchdog.record_balance(balance)
        else:
            log.warning("[PAYOUT] balance not returned", answer=type(balance).__name__)

    duties = (
        watchdog.warn_of_overdue,
        watchdog.warn_of_silence,
        spot_checks.run,
        refresh_balance,
        idempotency.delete_expired,
        deliveries.delete_old,
        mails.give_up_expired,
        mails.delete_old,
        old_webhooks.delete_old,
    )
    errors = [error for duty in duties if (error := _error_of(duty)) is not None]
    if errors:
        raise errors[0]


def _error_of(duty: Callable[[], object]) -> Exception | None:
    try:
        duty()
    except Exception as error:
        name = f"{duty.__module__}.{duty.__name__}"
        log.error("[WATCH] duty failed", duty=name, error=type(error).__name__)
        return error
    return None
