"""Blocks: UPI ids and handles that are not paid, and frozen wallets. Ended blocks are kept.

One operator blocks or freezes, at once. To end it, one operator proposes and a second approves. New requests
are refused; a withdrawal that waits already needs approval before it is sent (`review.py`). A frozen wallet
still receives credits and refunds.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.coins import wallet
from shared.errors import BadRequest, Conflict, NotFound
from shared.models import Block, BlockRemoval, Wallet
from shared.people import eligibility
from shared.people.eligibility import Subject
from shared.people.maker_checker import PAGE_ROWS, Flow, required_reason
from shared.roles import Permission
from shared.text import upi

UPI_ID = "upi_id"
WALLET = "wallet"
FLOW = Flow(BlockRemoval)
_HANDLE = re.compile(r"@[A-Za-z0-9]+")

_blocks_payee = (
    (Block.kind == UPI_ID)
    & Block.removed_at.is_(None)
    & (Block.subject == func.any(bindparam("subjects", type_=ARRAY(Text))))
)
IS_BLOCKED = select(Block.id).where(_blocks_payee).exists()

log = structlog.get_logger()


def block_subjects(upi_id: str) -> list[str]:
    """Return what a block on this UPI id may name: the UPI id and its handle, in lower case."""
    lower = upi_id.lower()
    return [lower, lower[lower.index("@") :]]


def add(session: Session, payee: str, *, reason: str, actor: str) -> Block:
    """Block a UPI id, or a whole handle (`@handle`). Raises BadRequest (invalid), Conflict (blocked)."""
    return _add(session, UPI_ID, parse_payee(payee), reason, actor)


def freeze(session: Session, user_id: str, *, reason: str, actor: str) -> Block:
    """Stop a user's withdrawals. Raises NotFound (no wallet), Conflict (already frozen), BadRequest."""
    wallet_row = wallet.find(session, user_id, lock=True)
    block = _add(session, WALLET, user_id, reason, actor)
    wallet_row.is_frozen = True
    return block


def propose_unblock(session: Session, payee: str, *, reason: str, actor: str) -> BlockRemoval:
    """Propose to end a block; nothing changes yet.

    Raises NotFound, BadRequest, Conflict (another proposal is open; the maker is not eligible).
    """
    return _propose_removal(session, UPI_ID, parse_payee(payee), reason, actor)


def propose_unfreeze(session: Session, user_id: str, *, reason: str, actor: str) -> BlockRemoval:
    """Propose to unfreeze a user's wallet; nothing changes yet. Raises the same as `propose_unblock`."""
    return _propose_removal(session, WALLET, user_id, reason, actor)


def approve(session: Session, removal_id: UUID, *, actor: str) -> Block:
    """Approve the end of a block or freeze as the checker. Withdrawals that it held still await approval.

    Raises NotFound, Conflict (already decided; the checker is not eligible).
    """
    removal, block, frozen_wallet = _lock(session, removal_id)
    checker = FLOW.approve(session, removal, decision_subject(block), actor=actor)
    block.removed_by = checker
    block.removed_because = removal.reason
    block.removed_at = func.now()
    session.flush()
    if frozen_wallet is not None:
        frozen_wallet.is_frozen = False
    session.refresh(block)
    log.warning("[ADMIN] unblocked", kind=block.kind, block=block.id, actor=checker)
    return block


def reject(session: Session, removal_id: UUID, *, actor: str) -> Block:
    """Close a proposal without effect; its maker may, too. Raises NotFound, Conflict."""
    removal, block, _ = _lock(session, removal_id)
    FLOW.reject(session, removal, decision_subject(block), actor=actor)
    return block


def open_removals(
    session: Session,
    *,
    kind: str | None = None,
    subject: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = PAGE_ROWS,
) -> Sequence[tuple[BlockRemoval, Block]]:
    """Return open proposals with their blocks, oldest first; `after` (proposed_at, id) continues."""
    query = FLOW.open_proposals().add_columns(Block).join(Block, Block.id == BlockRemoval.block_id)
    if kind is not None:
        query = query.where(Block.kind == kind)
    if subject is not None:
        query = query.where(Block.subject == subject)
    return [(removal, block) for removal, block in session.execute(FLOW.page(query, after, limit))]


def count_open(session: Session) -> int:
    """Return the number of open proposals."""
    return FLOW.count_open(session)


def decision_subject(block: Block) -> Subject:
    """Return the subject of the decision to end this block, for the eligibility rules."""
    if block.kind == WALLET:
        return Subject(Permission.FREEZE, user_id=block.subject)
    return Subject(Permission.FREEZE, upi_id=block.subject)


def why_not_approve(session: Session, removal: BlockRemoval, block: Block, actor: str) -> str | None:
    """Return why this operator may not approve it, as a sentence; None if they may."""
    subject = decision_subject(block)
    return eligibility.why_not_eligible(session, actor, subject, maker=removal.proposed_by)


def find(session: Session, payee: str) -> Block:
    """Return the block of a UPI id or handle. Raises NotFound, BadRequest."""
    return _find(session, UPI_ID, parse_payee(payee))


def listing(
    session: Session, *, kind: str = UPI_ID, with_removed: bool = False, limit: int = 200
) -> list[Block]:
    """Return the blocks, newest first."""
    query = select(Block).where(Block.kind == kind).order_by(Block.id.desc()).limit(limit)
    return list(session.scalars(query if with_removed else query.where(Block.removed_at.is_(None))))


def wallet_block(session: Session, user_id: str) -> Block | None:
    """Return the block that freezes this user's wallet; None if it is not frozen."""
    query = select(Block).where(Block.kind == WALLET, Block.subject == user_id, Block.removed_at.is_(None))
    return session.scalar(query)


def is_blocked(session: Session, upi_id: str) -> bool:
    """True if this UPI id or its handle is blocked."""
    return bool(session.scalar(select(IS_BLOCKED), {"subjects": block_subjects(upi_id)}))


def blocked_upi_ids(session: Session, upi_ids: Iterable[str]) -> set[str]:
    """Return those of these UPI ids that are blocked, or whose handle is."""
    subjects = {upi_id: block_subjects(upi_id) for upi_id in upi_ids}
    all_subjects = sorted({subject for pair in subjects.values() for subject in pair})
    blocked = set(session.scalars(select(Block.subject).where(_blocks_payee), {"subjects": all_subjects}))
    return {upi_id for upi_id, pair in subjects.items() if not blocked.isdisjoint(pair)}


def is_frozen(session: Session, user_id: str) -> bool:
    """True if this user's wallet is frozen."""
    return bool(session.scalar(select(Wallet.is_frozen).where(Wallet.user_id == user_id)))


def parse_payee(payee: str) -> str:
    """Return the subject of a block on this UPI id or handle. Raises BadRequest if it is neither."""
    cleaned = payee.strip()
    if not _HANDLE.fullmatch(cleaned) and upi.normalize(cleaned) is None:
        raise BadRequest(
            "Invalid UPI ID or handle",
            f"Enter a UPI id like {upi.EXAMPLE}, or a handle like @okhdfcbank",
            code="invalid_upi",
        )
    return cleaned.lower()


def _add(session: Session, kind: str, subject: str, reason: str, actor: str) -> Block:
    values = {"kind": kind, "subject": subject, "reason": required_reason(reason), "added_by": actor}
    new_block = upsert(Block).values(values).on_conflict_do_nothing().returning(Block)
    block: Block | None = session.scalar(new_block)
    if block is None:
        raise Conflict("Already blocked", "It is already blocked or frozen", code="blocked_already")
    log.warning("[ADMIN] blocked", kind=kind, block=block.id, actor=actor)
    return block


def _propose_removal(session: Session, kind: str, subject: str, reason: str, actor: str) -> BlockRemoval:
    block = _find(session, kind, subject)
    maker = eligibility.require_maker(session, actor, decision_subject(block))
    return FLOW.propose(session, block_id=block.id, reason=required_reason(reason), proposed_by=maker)


def _lock(session: Session, removal_id: UUID) -> tuple[BlockRemoval, Block, Wallet | None]:
    """Lock an open proposal, its block, and the wallet if it is frozen, in the same order as `freeze`."""
    block = session.get_one(Block, FLOW.find(session, removal_id).block_id)
    frozen_wallet = wallet.find(session, block.subject, lock=True) if block.kind == WALLET else None
    session.refresh(block, with_for_update=True)
    return FLOW.lock(session, removal_id), block, frozen_wallet


def _find(session: Session, kind: str, subject: str) -> Block:
    query = select(Block).where(Block.kind == kind, Block.subject == subject, Block.removed_at.is_(None))
    block = session.scalar(query.with_for_update())
    if block is None:
        raise NotFound("Not blocked", "It is not blocked or frozen", code="block_not_found")
    return block
