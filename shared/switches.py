"""Switches: which payouts may go. Off stops new sends; look-ups, polls and webhooks go on.

There is one for all payouts, one for the payment network behind RazorpayX, and one for each UPI handle that
has had trouble. They fail closed: the first must be there and on. People turn them, and so does the system,
which then also tries by itself whether the trouble is over: one payout goes as a probe, and its end turns the
switch on, or doubles the wait.
"""

from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import audit
from shared.errors import NotFound, Stale
from shared.models import Switch
from shared.settings import settings

PAYOUTS, NETWORK = "payouts", "network"
HANDLE = "handle:"
SYSTEM = "system"

_is_named = Switch.name.in_(bindparam("names", expanding=True))
_may_be_probed = Switch.probe_at.is_not(None) & (
    (Switch.probe_at <= func.now()) | (Switch.probe_id == bindparam("withdrawal_id"))
)
THESE = select(Switch.name, Switch.is_on, _may_be_probed.label("may_be_probed")).where(_is_named)
TROUBLED = select(Switch.name).where(_is_named, ~Switch.is_on | (Switch.strikes > 0))

log = structlog.get_logger()


def of_handle(upi_id: str) -> str:
    """The name of the switch for a UPI id's handle: `handle:okaxis` for `asha@okaxis`."""
    return HANDLE + upi_id.rpartition("@")[2].lower()


def of_payouts_to(upi_id: str) -> tuple[str, str, str]:
    """The switches that must be on for it, in the one order in which they are locked."""
    return PAYOUTS, NETWORK, of_handle(upi_id)


def off_for(session: Session, upi_id: str, withdrawal_id: UUID, *, may_probe: bool = True) -> str | None:
    """The switch that keeps this withdrawal from being sent; None when it may go, perhaps as a probe."""
    names = of_payouts_to(upi_id)
    found = {s.name: s for s in session.execute(THESE, {"names": names, "withdrawal_id": withdrawal_id})}
    if PAYOUTS not in found:
        return PAYOUTS
    off = [found[name] for name in names if name in found and not found[name].is_on]
    # Who cannot go for one reason must not be the probe for another: its turn would be lost, and with a few
    # of these the payouts that could go would never have one. The narrowest reason is told, for whoever ends
    # a wider pause wakes those that wait for that.
    for switch in reversed(off):
        if not (may_probe and switch.may_be_probed):
            return str(switch.name)
    # Always in this order, so that two who probe both cannot wait for each other.
    for switch in off:
        if not _may_probe(session, switch.name, withdrawal_id):
            return str(switch.name)
    return None


def as_seen(switch: Switch | None) -> str:
    """How a switch stands, in a few characters: who decides by what they see names it, and is held to it."""
    return f"{switch.changed_at.isoformat()} {switch.is_on}" if switch else "never turned"


def turn_off(session: Session, name: str, *, reason: str, actor: str, seen: str | None = None) -> Switch:
    """A person pauses: it stays so until a person resumes. Raises Stale when it is not as `seen`."""
    _must_be_as_seen(session.get(Switch, name, with_for_update=True, populate_existing=True), seen)
    switch = _locked(session, name)
    _set(session, switch, is_on=False, reason=reason, actor=actor)
    return switch


def turn_on(session: Session, name: str, *, reason: str, actor: str, seen: str | None = None) -> Switch:
    """Payouts may go again. Raises NotFound (no switch has this name), Stale (it is not as `seen`)."""
    switch = session.get(Switch, name, with_for_update=True, populate_existing=True)
    if switch is None:
        raise NotFound("No such switch", f"Nothing named {name} was ever paused", code="switch_not_found")
    _must_be_as_seen(switch, seen)
    _set(session, switch, is_on=True, reason=reason, actor=actor)
    return switch


def trip(session: Session, name: str, *, reason: str, withdrawal_id: UUID) -> bool:
    """The system pauses, and will probe. True when that was news: it was on until now.

    While it is off, only the probe's own failure counts: the next probe then waits twice as long.
    """
    if settings().auto_pause == "off":
        return False
    switch = _locked(session, name)
    if switch.is_on:
        _set(session, switch, is_on=False, reason=reason, actor=SYSTEM)
        switch.probe_at = func.now() + timedelta(seconds=settings().probe_seconds)
        return True
    if switch.probe_at is not None and switch.probe_id == withdrawal_id:
        switch.trips += 1
        switch.reason, switch.probe_id = reason, None
        seconds = min(settings().probe_seconds * 2 ** min(switch.trips, 20), settings().probe_max_seconds)
        switch.probe_at = func.now() + timedelta(seconds=seconds)
        log.warning("[PAYOUT] probe failed", switch=name, why=reason, next_in_seconds=seconds)
    return False


def strike(session: Session, name: str, *, limit: int, reason: str, withdrawal_id: UUID) -> bool:
    """Count a bad answer; the `limit`-th in a row trips the switch. True when it has just been turned off."""
    switch = _locked(session, name)
    switch.strikes += 1
    if switch.strikes < limit and switch.is_on:
        return False
    return trip(session, name, reason=reason, withdrawal_id=withdrawal_id)


def troubled(session: Session, names: tuple[str, ...]) -> list[str]:
    """Which of these are off or have counted bad answers: nearly always none. In the order given."""
    return sorted(session.scalars(TROUBLED, {"names": names}), key=names.index)


def went_well(session: Session, name: str, withdrawal_id: UUID) -> bool:
    """A good answer ends the count of bad ones. True when it was the probe's, and the switch is on again."""
    switch = _locked(session, name)
    if switch.is_on:
        switch.strikes = 0
        return False
    if switch.probe_at is None or switch.probe_id != withdrawal_id:
        return False
    _set(session, switch, is_on=True, reason="a probe went well", actor=SYSTEM)
    return True


def is_off_for(session: Session, name: str, reason: str) -> bool:
    """Whether the system turned this switch off for that reason."""
    off = select(Switch.name).where(Switch.name == name, ~Switch.is_on, Switch.actor == SYSTEM)
    return session.scalar(off.where(Switch.reason.startswith(f"{reason}:"))) is not None


def half_open(session: Session) -> list[str]:
    """The switches whose time for a probe has come."""
    return list(session.scalars(select(Switch.name).where(~Switch.is_on, Switch.probe_at <= func.now())))


def listing(session: Session) -> list[Switch]:
    """Every switch that there is."""
    return list(session.scalars(select(Switch).order_by(Switch.name != PAYOUTS, Switch.name)))


def _may_probe(session: Session, name: str, withdrawal_id: UUID) -> bool:
    """Whether this withdrawal is the probe, or has just become it. One at a time, by the database."""
    seconds = max(settings().lease_seconds, settings().probe_seconds)
    taken = session.execute(
        update(Switch)
        .where(Switch.name == name, ~Switch.is_on, Switch.probe_at.is_not(None))
        .where((Switch.probe_at <= func.now()) | (Switch.probe_id == withdrawal_id))
        .values(probe_id=withdrawal_id, probe_at=func.now() + timedelta(seconds=seconds))
        .returning(Switch.name)
        .execution_options(synchronize_session=False)
    )
    return taken.first() is not None


def _must_be_as_seen(switch: Switch | None, seen: str | None) -> None:
    if seen not in (None, as_seen(switch)):
        raise Stale("It was turned meanwhile; look again")


def _locked(session: Session, name: str) -> Switch:
    # That all payouts may go is never assumed: a lost row comes back as off.
    new = {"name": name, "is_on": name != PAYOUTS, "reason": "nobody turned it yet", "actor": SYSTEM}
    session.execute(upsert(Switch).values(**new).on_conflict_do_nothing())
    return session.get_one(Switch, name, with_for_update=True, populate_existing=True)


def _set(session: Session, switch: Switch, *, is_on: bool, reason: str, actor: str) -> None:
    before = {"is_on": switch.is_on, "reason": switch.reason, "actor": switch.actor}
    switch.is_on, switch.reason, switch.actor = is_on, reason, actor
    switch.changed_at = func.now()
    switch.strikes = switch.trips = 0
    switch.probe_at = switch.probe_id = None
    report = log.info if is_on else log.error
    report("[PAYOUT] resumed" if is_on else "[PAYOUT] paused", switch=switch.name, why=reason, actor=actor)
    audit.changed(
        session,
        "resumed" if is_on else "paused",
        subject=switch.name,
        actor=actor,
        reason=reason,
        before=before,
        after={"is_on": is_on},
    )
