"""Pauses: what keeps withdrawals from being sent, and how answers start and end them.

`switches.py` knows which switch is off; here stands what that means for withdrawals. While payouts pause,
nothing is sent; what may have been paid is looked up, what was accepted is followed, and users may cancel.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.orm import Session

from shared import exception_records, switches
from shared.db import locked_once, transaction
from shared.models import PayoutAttempt, Switch, Withdrawal
from shared.razorpayx import reasons
from shared.razorpayx.answers import Accepted, Answer, PayoutReport, Refused, Throttled, Unknown
from shared.settings import settings
from shared.states import LIVE, OPEN, AttemptState, Reason
from shared.withdrawals import journey

LOOK_SECONDS = 300  # how often a paused withdrawal looks for itself; the end of a pause wakes it at once
WAKE_AT_ONCE = 5000
LOW_BALANCE, REFUSES_US = "low_balance", "provider_refuses_us"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many withdrawals, and what they come to. Paise."""

    number: int
    paise: int


# Whoever was taken within this time shows that our settings are right: a refusal is then about one request.
PASSED_SECONDS = 600
REFUSED_ALONE = f"{journey.HELD}refused_alone"


def pause(name: str, *, reason: str, actor: str, seen: str | None = None) -> Switch:
    """A person stops all payouts (`payouts`), or those to a handle (`handle:okaxis`).

    Raises Conflict (not as `seen`, see `switches.as_seen`), Unavailable.
    """
    with transaction() as session:
        return switches.turn_off(session, name, reason=reason, actor=actor, seen=seen)


def resume(name: str, *, reason: str, actor: str, seen: str | None = None) -> Switch:
    """A person lets them go on; what waited for it is due at once. Raises NotFound, Conflict, Unavailable."""
    with transaction() as session:
        switch = switches.turn_on(session, name, reason=reason, actor=actor, seen=seen)
        _goes_on(session, name, actor=actor)
        return switch


def resume_if_nobody_waits(session: Session, name: str, *, reason: str) -> None:
    """There is money, and nothing is held back that could go as a probe: without this, the pause would stay
    until the next user comes. A payout that still waits for money at the provider knows better than a
    balance, which is some minutes old; a probe that is under way ends the pause itself.
    """
    is_open = Withdrawal.status.in_(OPEN)
    held_back = exists().where(is_open, Withdrawal.status_reason == _reason(name))
    unpaid = exists().where(
        is_open,
        PayoutAttempt.withdrawal_id == Withdrawal.id,
        PayoutAttempt.state == AttemptState.ACCEPTED,
        PayoutAttempt.status_details["reason"].astext == LOW_BALANCE,
    )
    is_free = exists().where(Switch.name == name, Switch.probe_at <= func.now())
    if session.scalar(select(~held_back & ~unpaid & is_free)):
        switches.turn_on(session, name, reason=reason, actor=switches.SYSTEM)
        _goes_on(session, name, actor=switches.SYSTEM)


def off_for(session: Session, withdrawal: Withdrawal) -> str | None:
    """The switch that keeps this withdrawal from being sent; None when it may go, perhaps as a probe.

    Whose request was refused is no probe while another could be: refused again, it would stop all again.
    """
    may_probe = withdrawal.refused_at is None or not _another_waits(session, withdrawal)
    return switches.off_for(session, withdrawal.upi_id, withdrawal.id, may_probe=may_probe)


def held_back_by(session: Session, switch: str) -> Counted:
    """What waits for this switch, and goes on when it is turned on: just what `wake` wakes."""
    return _counted(session, _waits_for(switch))


def would_hold_back(session: Session, switch: str) -> Counted:
    """What is not sent yet and would not be while the switch is off."""
    is_sent = exists().where(
        PayoutAttempt.withdrawal_id == Withdrawal.id,
        PayoutAttempt.state.in_(LIVE - {AttemptState.THROTTLED}),
    )
    unsent = [Withdrawal.status.in_(OPEN), ~is_sent]
    if switch.startswith(switches.HANDLE):
        unsent.append(_goes_to(switch))
    return _counted(session, and_(*unsent))


def _counted(session: Session, which: ColumnElement[bool]) -> Counted:
    asked = select(func.count(), func.coalesce(func.sum(Withdrawal.amount_paise), 0)).where(which)
    number, paise = session.execute(asked).one()
    return Counted(number, int(paise))


def _waits_for(switch: str) -> ColumnElement[bool]:
    why = _reason(switch)
    waits = and_(Withdrawal.status.in_(OPEN), Withdrawal.status_reason == why)
    return and_(waits, _goes_to(switch)) if why is Reason.HANDLE_PAUSED else waits


def _goes_to(switch: str) -> ColumnElement[bool]:
    handle = func.lower(func.split_part(Withdrawal.upi_id, "@", 2))
    return handle == switch.removeprefix(switches.HANDLE)


def hold_back(session: Session, withdrawal: Withdrawal, switch: str) -> None:
    """This withdrawal is not sent while the switch is off: it waits, and says why."""
    why = _reason(switch)
    if withdrawal.status_reason != why:
        journey.note(session, withdrawal, f"held_back:{switch}", actor="worker")
    journey.wait(withdrawal, why, LOOK_SECONDS * random.uniform(1.0, 1.25))  # noqa: S311  no secret


def learn_from_answer(session: Session, withdrawal: Withdrawal, answer: Answer) -> None:
    """What the answer to a call says about the provider and us: is it time to pause, or to go on?"""
    match answer:
        case Accepted(report=report) if not is_low_balance(report):
            withdrawal.refused_at = None
            _went_well(session, withdrawal, (switches.PAYOUTS,))
        case Refused(reason=reason) if reasons.policy(reason).whose == "ours":
            _trip(session, withdrawal, LOW_BALANCE, answer.description)
        case Refused():
            # It answers us. Whether there is money again it did not look at.
            if not switches.is_off_for(session, switches.PAYOUTS, LOW_BALANCE):
                _went_well(session, withdrawal, (switches.PAYOUTS,))
        case Throttled(because="refuses_us"):
            _trip(session, withdrawal, REFUSES_US, answer.description)
        case Throttled(because="refuses_request"):
            _learn_from_refused_request(session, withdrawal, answer.description)
        case Unknown() | Throttled(because="unreachable"):
            limit = settings().auto_pause_unknowns
            _strike(session, withdrawal, switches.PAYOUTS, limit, "no_answers", answer.description)


def learn_from_report(session: Session, withdrawal: Withdrawal, report: PayoutReport) -> None:
    """What the end of a payout, or its waiting for money, says about its handle and our account."""
    if is_low_balance(report):
        _trip(session, withdrawal, LOW_BALANCE, "The provider queues payouts until there is money")
    elif report.outcome == "paid":
        _went_well(session, withdrawal, switches.of_payouts_to(withdrawal.upi_id))
    elif report.outcome != "waiting":
        _learn_from_failure(session, withdrawal, report.reason)


def is_low_balance(report: PayoutReport) -> bool:
    """Whether the payout waits for money of ours (razorpayx.md §4.3)."""
    return report.outcome == "waiting" and report.reason == LOW_BALANCE


def wake(session: Session, switch: str, *, limit: int = WAKE_AT_ONCE) -> int:
    """Make what a switch held back due now, oldest first; how many there were."""
    waiting = select(Withdrawal.id).where(_waits_for(switch))
    # Whose own request was refused comes last: the first of them may be the probe.
    order = (Withdrawal.refused_at.is_not(None), Withdrawal.created_at)
    waiting = waiting.order_by(*order).limit(limit).with_for_update(skip_locked=True)
    # Only the time changes, and only of rows that nobody holds: no version is needed for that.
    woken = session.execute(
        update(Withdrawal)
        .where(Withdrawal.id.in_(locked_once(waiting)))
        .values(due_at=func.now())
        .returning(Withdrawal.id)
        .execution_options(synchronize_session=False)
    )
    return len(woken.all())


def wake_forgotten(session: Session) -> None:
    """Make due what waits for a switch that is on."""
    off = select(Switch.name).where(~Switch.is_on)
    of_handle = switches.HANDLE + func.lower(func.split_part(Withdrawal.upi_id, "@", 2))
    everything_on = ~exists(off.where(Switch.name.in_((switches.PAYOUTS, switches.NETWORK)))) & exists(
        select(Switch.name).where(Switch.name == switches.PAYOUTS)
    )
    forgotten = (
        select(Withdrawal.id)
        .where(Withdrawal.status.in_(OPEN), Withdrawal.due_at > func.now())
        .where(
            ((Withdrawal.status_reason == Reason.PAUSED) & everything_on)
            | ((Withdrawal.status_reason == Reason.HANDLE_PAUSED) & of_handle.not_in(off))
        )
        .limit(WAKE_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(Withdrawal)
        .where(Withdrawal.id.in_(locked_once(forgotten)))
        .values(due_at=func.now())
        .execution_options(synchronize_session=False)
    )


def _reason(switch: str) -> Reason:
    return Reason.HANDLE_PAUSED if switch.startswith(switches.HANDLE) else Reason.PAUSED


def _learn_from_refused_request(session: Session, withdrawal: Withdrawal, description: str) -> None:
    """Either our settings are wrong, or this request is: what RazorpayX takes of others says which.

    Refused a second time while others pass, it is set aside for a person. Where nobody passes, all pause.
    """
    refused_before = withdrawal.refused_at
    if refused_before is None:
        withdrawal.refused_at = func.now()
    if not _others_pass(session, withdrawal, refused_before):
        _trip(session, withdrawal, REFUSES_US, description)
    elif refused_before is not None:
        journey.flag(session, withdrawal, REFUSED_ALONE, actor="reply", description=description)


def _others_pass(session: Session, withdrawal: Withdrawal, since: datetime | None) -> bool:
    """Whether RazorpayX has taken a payout of somebody else from us since then, or lately."""
    passed = exists().where(
        PayoutAttempt.created_at >= (since or func.now() - timedelta(seconds=PASSED_SECONDS)),
        PayoutAttempt.withdrawal_id != withdrawal.id,
        PayoutAttempt.payout_id.is_not(None),
        PayoutAttempt.sent_as == settings().razorpayx_identity,
    )
    return bool(session.scalar(select(passed)))


def _another_waits(session: Session, withdrawal: Withdrawal) -> bool:
    """Whether somebody is held back whose own request was never refused."""
    other = exists().where(
        Withdrawal.status.in_(OPEN),
        Withdrawal.status_reason == Reason.PAUSED,
        Withdrawal.refused_at.is_(None),
        Withdrawal.id != withdrawal.id,
    )
    return bool(session.scalar(select(other)))


def _learn_from_failure(session: Session, withdrawal: Withdrawal, reason: str | None) -> None:
    whose = reasons.policy(reason).whose
    if whose == "ours":
        _trip(session, withdrawal, LOW_BALANCE, "A payout failed for want of money")
    elif whose in ("handle", "network"):
        name = switches.NETWORK if whose == "network" else switches.of_handle(withdrawal.upi_id)
        _strike(session, withdrawal, name, settings().auto_pause_handle_failures, reason or "", "")


def _trip(session: Session, withdrawal: Withdrawal, reason: str, description: str) -> None:
    why = f"{reason}: {description}"
    if switches.trip(session, switches.PAYOUTS, reason=why, withdrawal_id=withdrawal.id):
        _tell(session, withdrawal, switches.PAYOUTS, reason, description)


def _strike(
    session: Session, withdrawal: Withdrawal, switch: str, limit: int, reason: str, description: str
) -> None:
    if settings().auto_pause == "off":
        return
    why = f"{reason}: {limit} in a row. {description}".strip()
    if switches.strike(session, switch, limit=limit, reason=why, withdrawal_id=withdrawal.id):
        _tell(session, withdrawal, switch, reason, description)


def _went_well(session: Session, withdrawal: Withdrawal, names: tuple[str, ...]) -> None:
    for switch in switches.troubled(session, names):
        if switches.went_well(session, switch, withdrawal.id):
            _goes_on(session, switch, actor=switches.SYSTEM)


def _tell(session: Session, withdrawal: Withdrawal, switch: str, reason: str, description: str) -> None:
    ours: dict[str, Any] = {"switch": switch, "last_withdrawal": str(withdrawal.id)}
    theirs = {"reason": reason, "description": description}
    exception_records.open_record(
        session, kind="paused", subject=switch, source="system", ours=ours, theirs=theirs
    )


def _goes_on(session: Session, switch: str, *, actor: str) -> None:
    exception_records.close_all(
        session, kind="paused", subject=switch, resolution="payouts go on", actor=actor
    )
    wake(session, switch)
