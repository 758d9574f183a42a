"""What an act on a withdrawal is: who may, when it can be done, what it will do in rupees, the verb."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from shared.models import PayoutAttempt, Resolution, Withdrawal
from shared.money import rupees_text
from shared.roles import NEEDS, Permission, Role
from shared.upi import mask

WHY, EVIDENCE = "Reason", "Evidence: what was seen, and where"


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands there while somebody decides: the row, its live attempt, the proposal that waits."""

    session: Session
    withdrawal: Withdrawal
    attempt: PayoutAttempt | None
    proposal: Resolution | None
    actor: str

    @property
    def rupees(self) -> str:
        return rupees_text(self.withdrawal.amount_paise)

    @property
    def payee(self) -> str:
        return mask(self.withdrawal.upi_id)


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody filled in, and the version of the row that they saw."""

    reason: str
    utr: str
    version: int
    actor: str
    proposal: UUID | None = None
    paid_via: str = ""
    paid_at: str = ""  # as typed: in India


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be done to a withdrawal."""

    word: str  # in addresses and in the audit log
    title: str  # on the button
    asks: str  # what is to be said about it
    cannot: Callable[[Seen], str | None]  # why not, in words
    tells: Callable[[Seen], list[str]]  # what will happen
    does: Callable[[UUID, Given], str]  # does it; says what was done
    needs: Permission = Permission.WITHDRAWALS
    wants_payment: bool = False  # its UTR, by which way, and when
    in_bulk: bool = False

    @property
    def role(self) -> Role:
        """The role that it needs."""
        return NEEDS[self.needs]
