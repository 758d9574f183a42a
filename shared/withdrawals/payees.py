"""Where RazorpayX knows a payee. The row says who is paid: it never changes, it ends and another follows."""

import json

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.models import Destination, PayoutAttempt, Withdrawal
from shared.razorpayx.answers import Prepared
from shared.settings import settings
from shared.steps import Prepare


def remember(session: Session, step: Prepare, answer: Prepared) -> None:
    """The payee is known there from now on. If two withdrawals asked at once, the first answer stays."""
    statement = upsert(Destination).values(
        user_id=step.user_id,
        upi_id=step.upi_id,
        contact_id=answer.contact_id,
        fund_account_id=answer.fund_account_id,
        known_to=settings().razorpayx_identity,
    )
    session.execute(statement.on_conflict_do_nothing())


def forget(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> None:
    """What we know of the payee is no longer true, this refusal says: a new attempt makes them known anew."""
    session.flush()  # the database ends a destination only beside the refusal that shows why
    session.execute(
        update(Destination)
        .where(
            Destination.user_id == withdrawal.user_id,
            Destination.upi_id == withdrawal.upi_id,
            # Another attempt may have replaced it since.
            Destination.fund_account_id == json.loads(attempt.request_body)["fund_account_id"],
            Destination.ended_at.is_(None),
        )
        .values(ended_at=func.now())
        .execution_options(synchronize_session=False)
    )
