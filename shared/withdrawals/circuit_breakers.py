"""Circuit breakers: an open breaker stops new sends; look-ups, polls and webhooks continue.

There is one for all payouts, one for the payment network, and one for each UPI handle that has had failures.
A breaker is a row of the table `switches`: closed if `is_on`, open if not. They fail safe: without the row
for all payouts, nothing is sent. An operator who "pauses payouts" opens a breaker by hand, and it stays open
until one closes it. The system trips a breaker and probes it: once half-open (`probe_at`), one payout goes as
the probe (`probe_id`). If it succeeds, the breaker closes; if it fails, the wait doubles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import false, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.batches import Query, require_alone
from shared.errors import NotFound, Stale
from shared.models import CircuitBreaker
from shared.people import audit
from shared.settings import settings

PAYOUTS = "payouts"
NETWORK = "network"
HANDLE = "handle:"
SYSTEM = "system"

# All that are open or have counted failures, which are few, and the one for all payouts.
NOT_CLOSED = select(
    CircuitBreaker.name,
    CircuitBreaker.is_on,
    CircuitBreaker.strikes,
    func.coalesce(CircuitBreaker.probe_at <= func.now(), false()),
    CircuitBreaker.probe_id,
).where((CircuitBreaker.name == PAYOUTS) | ~CircuitBreaker.is_on | (CircuitBreaker.strikes > 0))
READ_NOT_CLOSED = Query(NOT_CLOSED)
KNOWN = "breakers"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class State:
    """A breaker as this transaction read it."""

    name: str
    is_on: bool
    strikes: int
    is_half_open: bool
    probe_id: UUID | None


def remember(session: Session, rows: Iterable[Sequence[Any]]) -> dict[str, State]:
    """Keep the rows of READ_NOT_CLOSED for this transaction, until it changes a breaker."""
    states = {row[0]: State(*row) for row in rows}
    session.info[KNOWN] = states
    return states


def handle_breaker(upi_id: str) -> str:
    """Return the name of the breaker for a UPI id's handle: `handle:okaxis` for `asha@okaxis`."""
    return HANDLE + upi_id.rpartition("@")[2].lower()


def breakers_for(upi_id: str) -> tuple[str, str, str]:
    """Return the breakers that must be closed for a UPI id, in the order in which they are locked."""
    return PAYOUTS, NETWORK, handle_breaker(upi_id)


def find_open(session: Session, upi_id: str, withdrawal_id: UUID, *, may_probe: bool = True) -> str | None:
    """Return the open breaker that stops this withdrawal; None if it may be sent, perhaps as a probe.

    If it may be sent as a probe, it becomes the probe.
    """
    states = _states(session)
    if PAYOUTS not in states:
        return PAYOUTS
    open_breakers = [
        states[name] for name in breakers_for(upi_id) if name in states and not states[name].is_on
    ]
    # A withdrawal that one breaker stops must not be the probe of another: the probe would be wasted, and a
    # few such withdrawals would keep all others from probing. Return the narrowest breaker, because closing a
    # wider one wakes only those that wait for it.
    for breaker in reversed(open_breakers):
        if not (may_probe and (breaker.is_half_open or breaker.probe_id == withdrawal_id)):
            return breaker.name
    # Always in this order, so that two probes cannot deadlock.
    for breaker in open_breakers:
        if not _claim_probe(session, breaker.name, withdrawal_id):
            return breaker.name
    return None


def version_of(breaker: CircuitBreaker | None) -> str:
    """Return a short text that changes with the breaker, so that an operator acts on what they saw."""
    return f"{breaker.changed_at.isoformat()} {breaker.is_on}" if breaker else "never turned"


def open_by_hand(
    session: Session, name: str, *, reason: str, actor: str, version: str | None = None
) -> CircuitBreaker:
    """Open the breaker until an operator closes it. Raises Stale (no longer this `version`)."""
    _require_version(session.get(CircuitBreaker, name, with_for_update=True, populate_existing=True), version)
    breaker = _lock(session, name)
    _set(session, breaker, is_on=False, reason=reason, actor=actor)
    return breaker


def close(
    session: Session, name: str, *, reason: str, actor: str, version: str | None = None
) -> CircuitBreaker:
    """Close the breaker: payouts may be sent again. Raises NotFound, Stale (no longer this `version`)."""
    breaker = session.get(CircuitBreaker, name, with_for_update=True, populate_existing=True)
    if breaker is None:
        raise NotFound("Not paused", f"{name} was never paused", code="switch_not_found")
    _require_version(breaker, version)
    _set(session, breaker, is_on=True, reason=reason, actor=actor)
    return breaker


def trip(session: Session, name: str, *, reason: str, withdrawal_id: UUID) -> bool:
    """Open the breaker for the system, which will probe it. True if it was closed until now.

    While it is open, only a failure of its own probe counts: the wait until the next probe doubles.
    """
    if settings().auto_pause == "off":
        return False
    breaker = _lock(session, name)
    if breaker.is_on:
        _set(session, breaker, is_on=False, reason=reason, actor=SYSTEM)
        breaker.probe_at = func.now() + timedelta(seconds=settings().probe_seconds)
        return True
    if breaker.probe_at is not None and breaker.probe_id == withdrawal_id:
        breaker.trips += 1
        breaker.reason = reason
        breaker.probe_id = None
        seconds = min(settings().probe_seconds * 2 ** min(breaker.trips, 20), settings().probe_max_seconds)
        breaker.probe_at = func.now() + timedelta(seconds=seconds)
        log.warning("[PAYOUT] probe failed", switch=name, why=reason, next_in_seconds=seconds)
    return False


def record_failure(session: Session, name: str, *, limit: int, reason: str, withdrawal_id: UUID) -> bool:
    """Count a failure; `limit` failures in a row trip the breaker. True if this one opened it."""
    breaker = _lock(session, name)
    breaker.strikes += 1
    if breaker.strikes < limit and breaker.is_on:
        return False
    return trip(session, name, reason=reason, withdrawal_id=withdrawal_id)


def unhealthy_breakers(session: Session, names: tuple[str, ...]) -> list[str]:
    """Return those that are open or have counted failures, in the order given: nearly always none."""
    states = _states(session)
    return [
        name for name in names if name in states and not (states[name].is_on and not states[name].strikes)
    ]


def changed_by_success(session: Session, names: tuple[str, ...], withdrawal_id: UUID) -> list[str]:
    """Return those that this withdrawal's success would close or whose count it would reset.

    While a breaker is open, that is its probe's alone, which became it before it was sent.
    """
    states = _states(session)
    return [
        name
        for name in unhealthy_breakers(session, names)
        if states[name].is_on or states[name].probe_id == withdrawal_id
    ]


def record_success(session: Session, name: str, withdrawal_id: UUID) -> bool:
    """Reset the count of failures. True if it was the probe's success, which closed the breaker."""
    breaker = _lock(session, name)
    if breaker.is_on:
        breaker.strikes = 0
        return False
    if breaker.probe_at is None or breaker.probe_id != withdrawal_id:
        return False
    _set(session, breaker, is_on=True, reason="a probe succeeded", actor=SYSTEM)
    return True


def is_open_because(session: Session, name: str, reason: str) -> bool:
    """True if the system opened this breaker for this reason."""
    open_by_system = select(CircuitBreaker.name).where(
        CircuitBreaker.name == name, ~CircuitBreaker.is_on, CircuitBreaker.actor == SYSTEM
    )
    return session.scalar(open_by_system.where(CircuitBreaker.reason.startswith(f"{reason}:"))) is not None


def half_open_breakers(session: Session) -> list[str]:
    """Return the breakers that may send a probe now."""
    return list(
        session.scalars(
            select(CircuitBreaker.name).where(~CircuitBreaker.is_on, CircuitBreaker.probe_at <= func.now())
        )
    )


def all_breakers(session: Session) -> list[CircuitBreaker]:
    """Return all breakers, the one for all payouts first."""
    return list(
        session.scalars(select(CircuitBreaker).order_by(CircuitBreaker.name != PAYOUTS, CircuitBreaker.name))
    )


def _claim_probe(session: Session, name: str, withdrawal_id: UUID) -> bool:
    """Make this withdrawal the breaker's probe. True if it is now; the database allows one at a time."""
    require_alone(session)
    session.info.pop(KNOWN, None)
    seconds = max(settings().lease_seconds, settings().probe_seconds)
    claimed = session.execute(
        update(CircuitBreaker)
        .where(CircuitBreaker.name == name, ~CircuitBreaker.is_on, CircuitBreaker.probe_at.is_not(None))
        .where((CircuitBreaker.probe_at <= func.now()) | (CircuitBreaker.probe_id == withdrawal_id))
        .values(probe_id=withdrawal_id, probe_at=func.now() + timedelta(seconds=seconds))
        .returning(CircuitBreaker.name)
        .execution_options(synchronize_session=False)
    )
    return claimed.first() is not None


def _require_version(breaker: CircuitBreaker | None, version: str | None) -> None:
    if version not in (None, version_of(breaker)):
        raise Stale("It was paused or resumed. Reload it, then decide again")


def _states(session: Session) -> dict[str, State]:
    known: dict[str, State] | None = session.info.get(KNOWN)
    return remember(session, session.execute(NOT_CLOSED)) if known is None else known


def _lock(session: Session, name: str) -> CircuitBreaker:
    require_alone(session)
    session.info.pop(KNOWN, None)
    # Never assume that payouts may be sent: a lost row for all payouts is created open.
    new = {"name": name, "is_on": name != PAYOUTS, "reason": "created on first use", "actor": SYSTEM}
    session.execute(upsert(CircuitBreaker).values(**new).on_conflict_do_nothing())
    return session.get_one(CircuitBreaker, name, with_for_update=True, populate_existing=True)


def _set(session: Session, breaker: CircuitBreaker, *, is_on: bool, reason: str, actor: str) -> None:
    before = {"is_on": breaker.is_on, "reason": breaker.reason, "actor": breaker.actor}
    breaker.is_on = is_on
    breaker.reason = reason
    breaker.actor = actor
    breaker.changed_at = func.now()
    breaker.strikes = breaker.trips = 0
    breaker.probe_at = breaker.probe_id = None
    write_log = log.info if is_on else log.error
    write_log(
        "[PAYOUT] resumed" if is_on else "[PAYOUT] paused", switch=breaker.name, why=reason, actor=actor
    )
    audit.record_change(
        session,
        "resumed" if is_on else "paused",
        subject=breaker.name,
        actor=actor,
        reason=reason,
        before=before,
        after={"is_on": is_on},
    )
