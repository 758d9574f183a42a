"""Who is not paid: blocked UPI ids and handles, and frozen wallets. Who blocked them, why and when stays.

One person blocks, at once; to end a block or a freeze one proposes it and another approves.

A new request to one of them is refused; what waits already is held for a person before it is sent
(`withdrawals/reviewing.py`). Coins of a frozen wallet stay, come in and come back.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import Text, bindparam, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared import maker_checker, upi, wallet
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import new_id
from shared.maker_checker import Matter
from shared.models import Block, BlockRemoval, Wallet
from shared.roles import Permission

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


def freeze(session: Session, user_id: str, *, reason: str, actor: str) -> Block:
    """Stop a user's withdrawals. Raises NotFound (no wallet), Conflict (it is frozen), BadRequest."""
    frozen = wallet.find(session, user_id, lock=True)
    block = _add(session, WALLET, user_id, reason, actor)
    frozen.is_frozen = True
    return block


def propose_unblock(session: Session, payee: str, *, reason: str, actor: str) -> BlockRemoval:
    """Propose that it be paid again; nothing changes yet.

    Raises NotFound, BadRequest, Conflict (a proposal waits; who may not: maker_checker.py).
    """
    return _propose(session, UPI_ID, subject_of(payee), reason, actor)


def propose_unfreeze(session: Session, user_id: str, *, reason: str, actor: str) -> BlockRemoval:
    """Propose that a user may withdraw again; nothing changes yet. Raises as `propose_unblock`."""
    return _propose(session, WALLET, user_id, reason, actor)


def approve(session: Session, removal_id: UUID, *, actor: str) -> Block:
    """A second person agrees, and the block is over. What was held awaits approval still.

    Raises NotFound, Conflict (decided already; who is no second person: maker_checker.py).
    """
    made, block, frozen = _locked(session, removal_id)
    actor = maker_checker.must_be_checker(session, actor, matter(block), maker=made.proposed_by)
    made.outcome, made.decided_by, made.decided_at = "approved", actor, func.now()
    session.flush()  # the decision first: the database asks for it
    block.removed_by, block.removed_because, block.removed_at = actor, made.reason, func.now()
    session.flush()
    if frozen is not None:
        frozen.is_frozen = False
    session.refresh(block)
    log.warning("[ADMIN] unblocked", kind=block.kind, block=block.id, actor=actor)
    return block


def reject(session: Session, removal_id: UUID, *, actor: str) -> Block:
    """Take a proposal off the table; its own author may. Raises NotFound, Conflict."""
    made, block, _ = _locked(session, removal_id)
    actor = maker_checker.must_hold(session, actor, Permission.FREEZE)
    made.outcome, made.decided_by, made.decided_at = "rejected", actor, func.now()
    session.flush()
    return block


def waiting(
    session: Session,
    *,
    kind: str | None = None,
    subject: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 200,
) -> Sequence[tuple[BlockRemoval, Block]]:
    """The proposals that wait, each with its block, oldest first; `after` (proposed_at, id) goes on."""
    query = select(BlockRemoval, Block).join(Block, Block.id == BlockRemoval.block_id)
    query = query.where(BlockRemoval.decided_at.is_(None))
    if kind is not None:
        query = query.where(Block.kind == kind)
    if subject is not None:
        query = query.where(Block.subject == subject)
    if after is not None:
        query = query.where(tuple_(BlockRemoval.proposed_at, BlockRemoval.id) > after)
    rows = session.execute(query.order_by(BlockRemoval.proposed_at, BlockRemoval.id).limit(limit))
    return [(made, block) for made, block in rows]


def number_waiting(session: Session) -> int:
    """How many proposals wait for a second person."""
    waits = select(func.count()).select_from(BlockRemoval).where(BlockRemoval.decided_at.is_(None))
    return session.scalars(waits).one()


def matter(block: Block) -> Matter:
    """Whom the end of this block would serve."""
    if block.kind == WALLET:
        return Matter(Permission.FREEZE, user_id=block.subject)
    return Matter(Permission.FREEZE, upi_id=block.subject)


def why_not(session: Session, made: BlockRemoval, block: Block, actor: str) -> str | None:
    """Why this operator may not approve it, in words; None when they may."""
    return maker_checker.refusal(session, actor, matter(block), maker=made.proposed_by)


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


def _propose(session: Session, kind: str, subject: str, reason: str, actor: str) -> BlockRemoval:
    block = _find(session, kind, subject)
    actor = maker_checker.must_be_maker(session, actor, matter(block))
    values = {"id": new_id(), "block_id": block.id, "reason": _given(reason), "proposed_by": actor}
    made = upsert(BlockRemoval).values(values).on_conflict_do_nothing().returning(BlockRemoval)
    removal: BlockRemoval | None = session.scalar(made)
    if removal is None:
        raise Conflict("A proposal waits", "Approve or reject it first", code="proposal_waits")
    return removal


def _locked(session: Session, removal_id: UUID) -> tuple[BlockRemoval, Block, Wallet | None]:
    """A proposal that waits, its block, and the wallet if it is frozen: locked in the order of `freeze`."""
    made = session.get(BlockRemoval, removal_id)
    if made is None:
        raise NotFound("No such proposal", f"There is no proposal {removal_id}", code="proposal_not_found")
    block = session.get_one(Block, made.block_id)
    frozen = wallet.find(session, block.subject, lock=True) if block.kind == WALLET else None
    session.refresh(block, with_for_update=True)
    session.refresh(made, with_for_update=True)
    if made.decided_at is not None:
        raise Conflict("Decided already", f"{made.decided_by} {made.outcome} it", code="proposal_decided")
    return made, block, frozen


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
