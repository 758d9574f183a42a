"""Who is not paid: blocked UPI ids and handles, and frozen wallets. Who blocked them, why and when stays.

A new request to one of them is refused; what waits already is held for a person before it is sent
(`withdrawals/reviewing.py`). Coins of a frozen wallet stay, come in and come back.
"""

import re
from collections.abc import Iterable

import structlog
from sqlalchemy import Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import upi, wallet
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Block, Wallet

UPI_ID, WALLET = "upi_id", "wallet"
_HANDLE = re.compile(r"@[A-Za-z0-9]+")

_of_payee = (
    (Block.kind == UPI_ID)
    & Block.removed_at.is_(None)
    & (Block.subject == func.any(bindparam("subjects", type_=ARRAY(Text))))
)
IS_BLOCKED = select(Block.id).where(_of_payee).exists()

log = structlog.get_logger()


def subjects(upi_id: str) -> list[str]:
    """What a block may name so that this UPI id is not paid: itself, and its handle; in lower case."""
    lower = upi_id.lower()
    return [lower, lower[lower.index("@") :]]


def add(session: Session, payee: str, *, reason: str, actor: str) -> Block:
    """Block a UPI id, or with `@handle` a whole handle. Raises BadRequest (neither), Conflict (it is)."""
    return _add(session, UPI_ID, subject_of(payee), reason, actor)


def remove(session: Session, payee: str, *, reason: str, actor: str) -> Block:
    """Let it be paid again. What was held awaits approval still. Raises NotFound, BadRequest."""
    return _remove(session, UPI_ID, subject_of(payee), reason, actor)


def freeze(session: Session, user_id: str, *, reason: str, actor: str) -> Block:
    """Stop a user's withdrawals. Raises NotFound (no wallet), Conflict (it is frozen), BadRequest."""
    frozen = wallet.find(session, user_id, lock=True)
    block = _add(session, WALLET, user_id, reason, actor)
    frozen.is_frozen = True
    return block


def unfreeze(session: Session, user_id: str, *, reason: str, actor: str) -> Block:
    """Let a user withdraw again. What was held awaits approval still. Raises NotFound, BadRequest."""
    frozen = wallet.find(session, user_id, lock=True)
    block = _remove(session, WALLET, user_id, reason, actor)
    frozen.is_frozen = False
    return block


def find(session: Session, payee: str) -> Block:
    """The block of a UPI id or handle. Raises NotFound, BadRequest."""
    return _find(session, UPI_ID, subject_of(payee))


def listing(
    session: Session, *, kind: str = UPI_ID, with_removed: bool = False, limit: int = 200
) -> list[Block]:
    """The blocks, newest first."""
    query = select(Block).where(Block.kind == kind).order_by(Block.id.desc()).limit(limit)
    return list(session.scalars(query if with_removed else query.where(Block.removed_at.is_(None))))


def of_wallet(session: Session, user_id: str) -> Block | None:
    """Since when, by whom and why this user's wallet is frozen; None when it is not."""
    query = select(Block).where(Block.kind == WALLET, Block.subject == user_id, Block.removed_at.is_(None))
    return session.scalar(query)


def is_blocked(session: Session, upi_id: str) -> bool:
    """Whether this UPI id, or its whole handle, is not paid."""
    return bool(session.scalar(select(IS_BLOCKED), {"subjects": subjects(upi_id)}))


def blocked(session: Session, upi_ids: Iterable[str]) -> set[str]:
    """Those of these UPI ids that are not paid, by themselves or with their whole handle."""
    named = {upi_id: subjects(upi_id) for upi_id in upi_ids}
    every = sorted({subject for both in named.values() for subject in both})
    found = set(session.scalars(select(Block.subject).where(_of_payee), {"subjects": every}))
    return {upi_id for upi_id, both in named.items() if not found.isdisjoint(both)}


def is_frozen(session: Session, user_id: str) -> bool:
    """Whether this user's withdrawals are stopped."""
    return bool(session.scalar(select(Wallet.is_frozen).where(Wallet.user_id == user_id)))


def subject_of(payee: str) -> str:
    """What is blocked where somebody names this. Raises BadRequest when it is no UPI id and no handle."""
    cleaned = payee.strip()
    if not _HANDLE.fullmatch(cleaned) and upi.clean(cleaned) is None:
        raise BadRequest(
            "Invalid UPI ID or handle",
            f"Name a UPI id like {upi.EXAMPLE}, or a handle like @okhdfcbank",
            code="invalid_upi",
        )
    return cleaned.lower()


def _add(session: Session, kind: str, subject: str, reason: str, actor: str) -> Block:
    made = upsert(Block).values(kind=kind, subject=subject, reason=_given(reason), added_by=actor)
    block: Block | None = session.scalar(made.on_conflict_do_nothing().returning(Block))
    if block is None:
        raise Conflict("Blocked already", "Somebody did this before", code="blocked_already")
    log.warning("[ADMIN] blocked", kind=kind, block=block.id, actor=actor)
    return block


def _remove(session: Session, kind: str, subject: str, reason: str, actor: str) -> Block:
    block = _find(session, kind, subject)
    block.removed_by, block.removed_because, block.removed_at = actor, _given(reason), func.now()
    session.flush()
    session.refresh(block)
    log.warning("[ADMIN] unblocked", kind=kind, block=block.id, actor=actor)
    return block


def _find(session: Session, kind: str, subject: str) -> Block:
    query = select(Block).where(Block.kind == kind, Block.subject == subject, Block.removed_at.is_(None))
    block = session.scalar(query.with_for_update())
    if block is None:
        raise NotFound("Not blocked", "There is no such block", code="block_not_found")
    return block


def _given(reason: str) -> str:
    if not reason.strip():
        raise BadRequest("A reason is required", "Say why", code="reason_required")
    return reason.strip()
