"""Manual credits and adjustments: one operator up to a daily limit; above it, a second operator approves.

A credit counts towards the user's lifetime coins, once per reference, like the app's own credits. An
adjustment corrects a balance and may be negative. The database does not let a proposal change.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog
from pydantic_core import PydanticCustomError
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.coins import wallet
from shared.db.transactions import transaction
from shared.errors import BadRequest, Conflict
from shared.ids import new_id
from shared.models import Adjustment, Wallet
from shared.people import eligibility
from shared.people.eligibility import Subject
from shared.people.maker_checker import PAGE_ROWS, Flow, required_reason
from shared.roles import Permission
from shared.settings import settings
from shared.text import fields

ADJUSTMENT = "adjustment"
CREDIT = "credit"
FLOW = Flow(Adjustment, not_found_code="adjustment_not_found", decided_code="adjustment_decided")
MAX_COINS = 10**12

# Coins changed without a second person since midnight in India: by this operator, and by all operators.
ALONE_TODAY = text(f"""
    SELECT coalesce(sum(abs(coins)) FILTER (WHERE proposed_by = :actor), 0) AS by_actor,
           coalesce(sum(abs(coins)), 0) AS by_all
    FROM adjustments
    WHERE decided_by = proposed_by AND outcome = 'approved' AND NOT needs_two
      AND decided_at >= CAST({wallet.TODAY} AS timestamp) AT TIME ZONE 'Asia/Kolkata'
""")
# One lock for all, because the limit on the sum is shared.
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
    """Propose a credit (with a `reference`) or an adjustment.

    Within the daily limits of one person it is carried out at once; otherwise it stays open for a checker.
    The same `key` proposes once. Raises BadRequest (also: the balance is too low), NotFound (no wallet),
    Conflict (the maker is not eligible; the reference or key was used for something else), Unavailable.
    """
    kind = ADJUSTMENT if reference is None else CREDIT
    _check_input(user_id, coins, reference)
    reason = required_reason(reason)
    with transaction() as session:
        maker = eligibility.require_maker(session, actor, _subject(user_id))
        session.execute(ONE_AT_A_TIME)
        existing = session.get(Adjustment, key) if key else None
        if existing is not None:
            _require_same_request(existing, (kind, user_id, coins, reference, maker))
            return existing
        proposal = FLOW.propose(
            session,
            id=key or new_id(),
            kind=kind,
            user_id=user_id,
            coins=coins,
            reference=reference,
            reason=reason,
            needs_two=needs_two(session, user_id, coins, actor=maker, reference=reference),
            proposed_by=maker,
        )
        if not proposal.needs_two:
            FLOW.record(session, proposal, FLOW.approved, maker)
            _carry_out(session, proposal, maker)
        return proposal


def needs_two(
    session: Session, user_id: str, coins: int, *, actor: str, reference: str | None = None
) -> bool:
    """True if a second person must approve it, by the limits as they are now.

    Raises BadRequest (the balance is too low), NotFound (no wallet).
    """
    _check_input(user_id, coins, reference)
    owner = session.get(Wallet, user_id) if reference is not None else wallet.find(session, user_id)
    if owner is not None:
        wallet.require_balance(owner, coins)
    alone = session.execute(ALONE_TODAY, {"actor": actor}).one()
    return bool(
        alone.by_actor + abs(coins) > settings().adjust_alone_max_coins
        or alone.by_all + abs(coins) > settings().adjust_alone_sum_coins
    )


def approve(adjustment_id: UUID, *, actor: str) -> Adjustment:
    """Approve a proposal as the second person; it is carried out at once.

    Raises NotFound, Conflict (the checker is not eligible, already decided, too few coins, the reference was
    used for something else), Unavailable.
    """
    with transaction() as session:
        proposal = FLOW.lock(session, adjustment_id)
        checker = FLOW.approve(session, proposal, _subject(proposal.user_id), actor=actor)
        _carry_out(session, proposal, checker)
        return proposal


def reject(adjustment_id: UUID, *, actor: str) -> Adjustment:
    """Close a proposal without effect; its maker may, too. Raises NotFound, Conflict, Unavailable."""
    with transaction() as session:
        proposal = FLOW.lock(session, adjustment_id)
        FLOW.reject(session, proposal, _subject(proposal.user_id), actor=actor)
        return proposal


def open_proposals(
    session: Session,
    *,
    user_id: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = PAGE_ROWS,
) -> Sequence[Adjustment]:
    """Return the open proposals, oldest first; `after` (proposed_at, id) continues after one."""
    of_user = [] if user_id is None else [Adjustment.user_id == user_id]
    return session.scalars(FLOW.page(FLOW.open_proposals(*of_user), after, limit)).all()


def count_open(session: Session) -> int:
    """Return the number of open proposals."""
    return FLOW.count_open(session)


def why_not_approve(session: Session, proposal: Adjustment, actor: str) -> str | None:
    """Return why this operator may not approve it, as a sentence; None if they may."""
    subject = _subject(proposal.user_id)
    return eligibility.why_not_eligible(session, actor, subject, maker=proposal.proposed_by)


def _subject(user_id: str) -> Subject:
    return Subject(Permission.COINS, user_id=user_id)


def _require_same_request(existing: Adjustment, requested: tuple[str, str, int, str | None, str]) -> None:
    first = (existing.kind, existing.user_id, existing.coins, existing.reference, existing.proposed_by)
    if first != requested:
        raise Conflict("Already proposed", "This key was used for another proposal", code="key_reused")


def _check_input(user_id: str, coins: int, reference: str | None) -> None:
    try:
        fields.parse_text(user_id, "user_id", fields.MAX_USER_ID_CHARACTERS)
        if reference is not None:
            fields.parse_reference(reference)
    except PydanticCustomError as error:
        fault = error.context or {}
        raise BadRequest(fault["error"], fault["details"], code="invalid_field") from None
    if coins == 0 or abs(coins) > MAX_COINS or (reference is not None and coins < 0):
        raise BadRequest(
            "Invalid coins",
            f"Enter 1 to {MAX_COINS:,} coins; only an adjustment may be negative",
            code="invalid_coins",
        )


def _carry_out(session: Session, proposal: Adjustment, actor: str) -> None:
    """Move the coins. The decision is recorded already, because the journal entry depends on it."""
    if proposal.kind == CREDIT:
        assert proposal.reference, "a credit has a reference"
        credit = wallet.credit(
            session,
            user_id=proposal.user_id,
            coins=proposal.coins,
            reference=proposal.reference,
            actor=actor,
            reason=proposal.reason,
        )
        if credit.replayed:
            raise Conflict("Already credited", "This reference is already credited", code="reference_reused")
    else:
        wallet.adjust(session, proposal, actor)
    log.warning(
        "[ADMIN] coins changed",
        kind=proposal.kind,
        coins=proposal.coins,
        adjustment=str(proposal.id),
        actor=actor,
    )
