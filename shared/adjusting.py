"""Coins that people give or take: alone up to a limit a day, each and in sum; above it a second approves.

A credit counts towards what a user ever got, once for its reference, as the app's own do; an adjustment mends
a balance, and may take. What is approved is what was proposed: the database lets nothing of it change.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog
from pydantic_core import PydanticCustomError
from sqlalchemy import func, select, text, tuple_
from sqlalchemy.orm import Session

from shared import fields, maker_checker, wallet
from shared.db import transaction
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.maker_checker import Matter
from shared.models import Adjustment, Wallet
from shared.roles import Permission
from shared.settings import settings

ADJUSTMENT, CREDIT = "adjustment", "credit"
MAX_COINS = 10**12

# What was done without a second person since midnight in India: by this one, and by all.
ALONE_TODAY = text(f"""
    SELECT coalesce(sum(abs(coins)) FILTER (WHERE proposed_by = :actor), 0) AS by_actor,
           coalesce(sum(abs(coins)), 0) AS by_all
    FROM adjustments
    WHERE decided_by = proposed_by AND outcome = 'approved' AND NOT needs_two
      AND decided_at >= CAST({wallet.TODAY} AS timestamp) AT TIME ZONE 'Asia/Kolkata'
""")
# One lock for everybody, since the sum is everybody's.
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('adjustments: what is done alone'))")

log = structlog.get_logger()


def propose(
    user_id: str,
    coins: int,
    *,
    reason: str,
    actor: str,
    reference: str | None = None,
    key: UUID | None = None,
) -> Adjustment:
    """Give coins to a user, or take some: a credit when there is a `reference`, else an adjustment.

    Done at once within what one person may do alone in a day; else it waits for a second. Under a `key` of
    the caller's it is proposed once. Raises BadRequest (also: more would be taken than there is), NotFound
    (no wallet), Conflict (who may not propose it; the reference or key was used for something else),
    Unavailable.
    """
    kind = ADJUSTMENT if reference is None else CREDIT
    _must_make_sense(user_id, coins, reference)
    if not reason.strip():
        raise BadRequest("A reason is required", "Say why", code="reason_required")
    with transaction() as session:
        actor = maker_checker.must_be_maker(session, actor, _matter(user_id))
        session.execute(ONE_AT_A_TIME)
        asked = (kind, user_id, coins, reference, actor)
        made = session.get(Adjustment, key) if key else None
        if made is not None:
            if asked != (made.kind, made.user_id, made.coins, made.reference, made.proposed_by):
                raise Conflict("Already proposed", "Something else was, under this key", code="key_reused")
            return made
        made = Adjustment(
            id=key or new_id(),
            kind=kind,
            user_id=user_id,
            coins=coins,
            reference=reference,
            reason=reason.strip(),
            needs_two=needs_two(session, user_id, coins, actor=actor, reference=reference),
            proposed_by=actor,
        )
        session.add(made)
        session.flush()
        if not made.needs_two:
            _carry_out(session, made, actor)
        session.refresh(made)
        return made


def needs_two(
    session: Session, user_id: str, coins: int, *, actor: str, reference: str | None = None
) -> bool:
    """Whether a second person must agree, as things stand.

    Raises BadRequest (what nobody could carry out: more would be taken than there is), NotFound (no wallet).
    """
    _must_make_sense(user_id, coins, reference)
    owner = session.get(Wallet, user_id) if reference is not None else wallet.find(session, user_id)
    if owner is not None:
        wallet.must_hold(owner, coins)
    alone = session.execute(ALONE_TODAY, {"actor": actor}).one()
    return bool(
        alone.by_actor + abs(coins) > settings().adjust_alone_max_coins
        or alone.by_all + abs(coins) > settings().adjust_alone_sum_coins
    )


def approve(adjustment_id: UUID, *, actor: str) -> Adjustment:
    """A second person agrees, and it is done.

    Raises NotFound, Conflict (who is no second person: maker_checker.py; decided already, too few coins, the
    reference was used for something else), Unavailable.
    """
    with transaction() as session:
        made = _locked(session, adjustment_id)
        actor = maker_checker.must_be_checker(session, actor, _matter(made.user_id), maker=made.proposed_by)
        _carry_out(session, made, actor)
        session.refresh(made)
        return made


def reject(adjustment_id: UUID, *, actor: str) -> Adjustment:
    """Take a proposal off the table; its own author may. Raises NotFound, Conflict, Unavailable."""
    with transaction() as session:
        made = _locked(session, adjustment_id)
        actor = maker_checker.must_hold(session, actor, Permission.COINS)
        made.outcome, made.decided_by, made.decided_at = "rejected", actor, func.now()
        session.flush()
        session.refresh(made)
        return made


def waiting(
    session: Session,
    *,
    user_id: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 200,
) -> Sequence[Adjustment]:
    """The proposals that wait for a second person, oldest first; `after` (proposed_at, id) goes on behind."""
    query = select(Adjustment).where(Adjustment.decided_at.is_(None))
    if user_id is not None:
        query = query.where(Adjustment.user_id == user_id)
    if after is not None:
        query = query.where(tuple_(Adjustment.proposed_at, Adjustment.id) > after)
    return session.scalars(query.order_by(Adjustment.proposed_at, Adjustment.id).limit(limit)).all()


def number_waiting(session: Session) -> int:
    """How many proposals wait for a second person."""
    waits = select(func.count()).select_from(Adjustment).where(Adjustment.decided_at.is_(None))
    return session.scalars(waits).one()


def why_not(session: Session, user_id: str, proposed_by: str, actor: str) -> str | None:
    """Why this operator may not approve what that one proposed for a user, in words; None when they may."""
    return maker_checker.refusal(session, actor, _matter(user_id), maker=proposed_by)


def _matter(user_id: str) -> Matter:
    """Whom coins of this user's would serve."""
    return Matter(Permission.COINS, user_id=user_id)


def _must_make_sense(user_id: str, coins: int, reference: str | None) -> None:
    try:
        fields.text(user_id, "user_id", fields.MAX_USER_ID)
        if reference is not None:
            fields.reference(reference)
    except PydanticCustomError as error:
        told = error.context or {}
        raise BadRequest(told["error"], told["details"], code="invalid_field") from None
    if coins == 0 or abs(coins) > MAX_COINS or (reference is not None and coins < 0):
        raise BadRequest(
            "Invalid coins",
            f"A credit has 1 to {MAX_COINS} coins; an adjustment may take as many",
            code="invalid_coins",
        )


def _locked(session: Session, adjustment_id: UUID) -> Adjustment:
    made = session.get(Adjustment, adjustment_id, with_for_update=True, populate_existing=True)
    if made is None:
        raise NotFound(
            "No such proposal", f"There is no proposal {adjustment_id}", code="adjustment_not_found"
        )
    if made.decided_at is not None:
        raise Conflict("Decided already", f"{made.decided_by} {made.outcome} it", code="adjustment_decided")
    return made


def _carry_out(session: Session, made: Adjustment, actor: str) -> None:
    made.outcome, made.decided_by, made.decided_at = "approved", actor, func.now()
    session.flush()  # the decision first: the journal's line leans on it
    if made.kind == CREDIT:
        assert made.reference, "a credit has a reference"
        given = wallet.credit(
            session,
            user_id=made.user_id,
            coins=made.coins,
            reference=made.reference,
            actor=actor,
            reason=made.reason,
        )
        if given.replayed:
            raise Conflict(
                "Credited already", "This reference gave these coins before", code="reference_reused"
            )
    else:
        wallet.adjust(session, made, actor)
    log.warning(
        "[ADMIN] coins changed", kind=made.kind, coins=made.coins, adjustment=str(made.id), actor=actor
    )
