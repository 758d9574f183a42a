"""Pauses: what an open circuit breaker means for withdrawals, and which answers trip and close the breakers.

While payouts are paused, nothing is sent. Payouts that may have been paid are looked up, accepted ones are
followed, and users can cancel.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.orm import Session

from shared.db.transactions import now, select_locked_once, transaction
from shared.models import CircuitBreaker, PayoutAttempt, Withdrawal
from shared.people import exception_records
from shared.providers import failures
from shared.providers.answers import Accepted, Answer, PayoutReport, Refused, Throttled, Unknown
from shared.providers.registry import provider
from shared.settings import settings
from shared.states import LIVE, OPEN, AttemptState, Reason
from shared.withdrawals import circuit_breakers, transitions

# How often a paused withdrawal checks its breaker; when the breaker closes, it is woken at once.
PAUSED_CHECK_SECONDS = 300
WAKE_BATCH_ROWS = 5000
# Reasons why the breaker for all payouts trips.
LOW_BALANCE = "low_balance"
REFUSES_US = "provider_refuses_us"


@dataclass(frozen=True, slots=True)
class PayoutTotal:
    """The number of withdrawals and their sum in paise."""

    number: int
    paise: int


# A payout accepted within this time shows that our settings are valid, so a refusal is about one request.
RECENTLY_ACCEPTED_SECONDS = 600
REFUSED_ALONE = f"{transitions.HELD}refused_alone"


def pause(name: str, *, reason: str, actor: str, version: str | None = None) -> CircuitBreaker:
    """Pause all payouts (`payouts`), or those to a UPI handle (`handle:okaxis`), by hand.

    Raises Stale (no longer this `version`, see `circuit_breakers.version_of`), Unavailable.
    """
    with transaction() as session:
        return circuit_breakers.open_by_hand(session, name, reason=reason, actor=actor, version=version)


def resume(name: str, *, reason: str, actor: str, version: str | None = None) -> CircuitBreaker:
    """Resume payouts by hand; those that waited are due at once. Raises NotFound, Stale, Unavailable."""
    with transaction() as session:
        breaker = circuit_breakers.close(session, name, reason=reason, actor=actor, version=version)
        _after_close(session, name, actor=actor)
        return breaker


def resume_if_nothing_waits(session: Session, name: str, *, reason: str) -> None:
    """Resume when there is money again and no withdrawal waits that could be the probe.

    Otherwise the pause would last until the next request. Do nothing while a payout waits for money at the
    provider, which is more recent than the balance, or while a probe is under way, which closes the breaker
    itself.
    """
    is_open = Withdrawal.status.in_(OPEN)
    paused = exists().where(is_open, Withdrawal.status_reason == _reason(name))
    unpaid = exists().where(
        is_open,
        PayoutAttempt.withdrawal_id == Withdrawal.id,
        PayoutAttempt.state == AttemptState.ACCEPTED,
        PayoutAttempt.status_details["reason"].astext == LOW_BALANCE,
    )
    is_half_open = exists().where(CircuitBreaker.name == name, CircuitBreaker.probe_at <= func.now())
    if session.scalar(select(~paused & ~unpaid & is_half_open)):
        circuit_breakers.close(session, name, reason=reason, actor=circuit_breakers.SYSTEM)
        _after_close(session, name, actor=circuit_breakers.SYSTEM)


def pausing_breaker(session: Session, withdrawal: Withdrawal) -> str | None:
    """Return the open breaker that stops this withdrawal; None if it may be sent, perhaps as a probe.

    A withdrawal whose request was refused is the probe only if no other can be: refused again, it would keep
    the breaker open.
    """
    may_probe = withdrawal.refused_at is None or not _another_waits(session, withdrawal)
    return circuit_breakers.find_open(session, withdrawal.upi_id, withdrawal.id, may_probe=may_probe)


def total_waiting(session: Session, breaker: str) -> PayoutTotal:
    """Return the total of the withdrawals that wait for this breaker: the ones that `wake` wakes."""
    return _total(session, _waits_for(breaker))


def total_affected(session: Session, breaker: str) -> PayoutTotal:
    """Return the total of the withdrawals that are not sent yet and that this breaker stops while open."""
    is_sent = exists().where(
        PayoutAttempt.withdrawal_id == Withdrawal.id,
        PayoutAttempt.state.in_(LIVE - {AttemptState.THROTTLED}),
    )
    unsent = [Withdrawal.status.in_(OPEN), ~is_sent]
    if breaker.startswith(circuit_breakers.HANDLE):
        unsent.append(_goes_to(breaker))
    return _total(session, and_(*unsent))


def _total(session: Session, condition: ColumnElement[bool]) -> PayoutTotal:
    query = select(func.count(), func.coalesce(func.sum(Withdrawal.amount_paise), 0)).where(condition)
    number, paise = session.execute(query).one()
    return PayoutTotal(number, int(paise))


def _waits_for(breaker: str) -> ColumnElement[bool]:
    reason = _reason(breaker)
    waits = and_(Withdrawal.status.in_(OPEN), Withdrawal.status_reason == reason)
    return and_(waits, _goes_to(breaker)) if reason is Reason.HANDLE_PAUSED else waits


def _goes_to(breaker: str) -> ColumnElement[bool]:
    handle = func.lower(func.split_part(Withdrawal.upi_id, "@", 2))
    return handle == breaker.removeprefix(circuit_breakers.HANDLE)


def postpone(session: Session, withdrawal: Withdrawal, breaker: str) -> None:
    """Reschedule a withdrawal that an open breaker stops, with the reason why it waits."""
    reason = _reason(breaker)
    if withdrawal.status_reason != reason:
        transitions.record(session, withdrawal, f"held_back:{breaker}", actor="worker")
    seconds = PAUSED_CHECK_SECONDS * random.uniform(1.0, 1.25)  # noqa: S311  no secret
    transitions.reschedule(withdrawal, reason, seconds)


def update_breakers_from_answer(session: Session, withdrawal: Withdrawal, answer: Answer) -> None:
    """Trip or close the breaker for all payouts, by what the answer says about the provider and about us."""
    match answer:
        case Accepted(report=report) if not is_low_balance(report):
            withdrawal.refused_at = None
            _record_success(session, withdrawal, (circuit_breakers.PAYOUTS,))
        case Refused(reason=reason) if failures.policy_for(reason).fault_domain == "ours":
            _trip_payouts(session, withdrawal, LOW_BALANCE, answer.description)
        case Refused():
            # The provider accepts our calls, but it did not check whether there is money again.
            if not circuit_breakers.is_open_because(session, circuit_breakers.PAYOUTS, LOW_BALANCE):
                _record_success(session, withdrawal, (circuit_breakers.PAYOUTS,))
        case Throttled(cause="refuses_us"):
            _trip_payouts(session, withdrawal, REFUSES_US, answer.description)
        case Throttled(cause="refuses_request"):
            _record_refused_request(session, withdrawal, answer.description)
        case Unknown() | Throttled(cause="unreachable"):
            limit = settings().auto_pause_unknowns
            _record_failure(
                session, withdrawal, circuit_breakers.PAYOUTS, limit, "no_answers", answer.description
            )


def update_breakers_from_report(session: Session, withdrawal: Withdrawal, report: PayoutReport) -> None:
    """Trip or close breakers by a payout's outcome, or because it waits for money."""
    if is_low_balance(report):
        _trip_payouts(session, withdrawal, LOW_BALANCE, "The provider queues payouts until there is money")
    elif report.outcome == "paid":
        _record_success(session, withdrawal, circuit_breakers.breakers_for(withdrawal.upi_id))
    elif report.outcome != "waiting":
        _record_failed_payout(session, withdrawal, report.reason)


def is_low_balance(report: PayoutReport) -> bool:
    """True if the payout waits for money on our account (provider reference §4.3)."""
    return report.outcome == "waiting" and report.reason == LOW_BALANCE


def wake(session: Session, breaker: str, *, limit: int = WAKE_BATCH_ROWS) -> int:
    """Make the withdrawals that wait for this breaker due now, oldest first; returns how many."""
    waiting = select(Withdrawal.id).where(_waits_for(breaker))
    # Those whose own request was refused come last, because the first one may be the probe.
    order = (Withdrawal.refused_at.is_not(None), Withdrawal.created_at)
    waiting = waiting.order_by(*order).limit(limit).with_for_update(skip_locked=True)
    # Only `due_at` changes, of rows that are not locked, so the version stays.
    woken = session.execute(
        update(Withdrawal)
        .where(Withdrawal.id.in_(select_locked_once(waiting)))
        .values(due_at=func.now())
        .returning(Withdrawal.id)
        .execution_options(synchronize_session=False)
    )
    return len(woken.all())


def wake_missed(session: Session) -> None:
    """Make withdrawals due now that wait for a breaker which is closed."""
    open_breakers = select(CircuitBreaker.name).where(~CircuitBreaker.is_on)
    handle_breaker = circuit_breakers.HANDLE + func.lower(func.split_part(Withdrawal.upi_id, "@", 2))
    all_closed = ~exists(
        open_breakers.where(CircuitBreaker.name.in_((circuit_breakers.PAYOUTS, circuit_breakers.NETWORK)))
    ) & exists(select(CircuitBreaker.name).where(CircuitBreaker.name == circuit_breakers.PAYOUTS))
    missed = (
        select(Withdrawal.id)
        .where(Withdrawal.status.in_(OPEN), Withdrawal.due_at > func.now())
        .where(
            ((Withdrawal.status_reason == Reason.PAUSED) & all_closed)
            | ((Withdrawal.status_reason == Reason.HANDLE_PAUSED) & handle_breaker.not_in(open_breakers))
        )
        .limit(WAKE_BATCH_ROWS)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(Withdrawal)
        .where(Withdrawal.id.in_(select_locked_once(missed)))
        .values(due_at=func.now())
        .execution_options(synchronize_session=False)
    )


def _reason(breaker: str) -> Reason:
    return Reason.HANDLE_PAUSED if breaker.startswith(circuit_breakers.HANDLE) else Reason.PAUSED


def _record_refused_request(session: Session, withdrawal: Withdrawal, description: str) -> None:
    """Decide whether our settings or this one request is wrong, by whether other payouts are accepted.

    If no other is accepted, pause all. If others are and this one is refused a second time, hold it.
    """
    refused_before = withdrawal.refused_at
    if refused_before is None:
        withdrawal.refused_at = now(session)
    if not _others_are_accepted(session, withdrawal, refused_before):
        _trip_payouts(session, withdrawal, REFUSES_US, description)
    elif refused_before is not None:
        transitions.hold(session, withdrawal, REFUSED_ALONE, actor="reply", description=description)


def _others_are_accepted(session: Session, withdrawal: Withdrawal, since: datetime | None) -> bool:
    """True if the provider has accepted a payout of another withdrawal since then, or recently."""
    accepted = exists().where(
        PayoutAttempt.created_at >= (since or func.now() - timedelta(seconds=RECENTLY_ACCEPTED_SECONDS)),
        PayoutAttempt.withdrawal_id != withdrawal.id,
        PayoutAttempt.payout_id.is_not(None),
        PayoutAttempt.sent_as == provider().identity(),
    )
    return bool(session.scalar(select(accepted)))


def _another_waits(session: Session, withdrawal: Withdrawal) -> bool:
    """True if another withdrawal is paused whose own request was never refused."""
    other = exists().where(
        Withdrawal.status.in_(OPEN),
        Withdrawal.status_reason == Reason.PAUSED,
        Withdrawal.refused_at.is_(None),
        Withdrawal.id != withdrawal.id,
    )
    return bool(session.scalar(select(other)))


def _record_failed_payout(session: Session, withdrawal: Withdrawal, reason: str | None) -> None:
    fault_domain = failures.policy_for(reason).fault_domain
    if fault_domain == "ours":
        _trip_payouts(session, withdrawal, LOW_BALANCE, "A payout failed because the balance is too low")
    elif fault_domain in ("handle", "network"):
        name = (
            circuit_breakers.NETWORK
            if fault_domain == "network"
            else circuit_breakers.handle_breaker(withdrawal.upi_id)
        )
        _record_failure(session, withdrawal, name, settings().auto_pause_handle_failures, reason or "", "")


def _trip_payouts(session: Session, withdrawal: Withdrawal, reason: str, description: str) -> None:
    text = f"{reason}: {description}"
    if circuit_breakers.trip(session, circuit_breakers.PAYOUTS, reason=text, withdrawal_id=withdrawal.id):
        _open_exception_record(session, withdrawal, circuit_breakers.PAYOUTS, reason, description)


def _record_failure(
    session: Session, withdrawal: Withdrawal, breaker: str, limit: int, reason: str, description: str
) -> None:
    if settings().auto_pause == "off":
        return
    text = f"{reason}: {limit} in a row. {description}".strip()
    if circuit_breakers.record_failure(
        session, breaker, limit=limit, reason=text, withdrawal_id=withdrawal.id
    ):
        _open_exception_record(session, withdrawal, breaker, reason, description)


def _record_success(session: Session, withdrawal: Withdrawal, names: tuple[str, ...]) -> None:
    for breaker in circuit_breakers.changed_by_success(session, names, withdrawal.id):
        if circuit_breakers.record_success(session, breaker, withdrawal.id):
            _after_close(session, breaker, actor=circuit_breakers.SYSTEM)


def _open_exception_record(
    session: Session, withdrawal: Withdrawal, breaker: str, reason: str, description: str
) -> None:
    ours: dict[str, Any] = {"switch": breaker, "last_withdrawal": str(withdrawal.id)}
    theirs = {"reason": reason, "description": description}
    exception_records.open_record(
        session, kind="paused", subject=breaker, source="system", ours=ours, theirs=theirs
    )


def _after_close(session: Session, breaker: str, *, actor: str) -> None:
    exception_records.close_all(
        session, kind="paused", subject=breaker, resolution="payouts resumed", actor=actor
    )
    wake(session, breaker)
