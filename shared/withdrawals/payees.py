"""Payees as the provider knows them. A destination row never changes: it ends, and a new one replaces it."""

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from shared.db import batches
from shared.db.batches import Query
from shared.ids import new_id
from shared.models import Destination, PayoutAttempt, Withdrawal
from shared.providers.answers import Prepared
from shared.providers.registry import provider
from shared.providers.steps import Prepare
from shared.withdrawals.cases import Case

SAVE = Query("""
    INSERT INTO destinations (id, user_id, upi_id, contact_id, fund_account_id, known_to)
    VALUES (%(id)s, %(user_id)s, %(upi_id)s, %(contact_id)s, %(fund_account_id)s, %(known_to)s)
    ON CONFLICT DO NOTHING
""")


def save_destination(session: Session, case: Case, step: Prepare, answer: Prepared) -> str:
    """Store the payee's ids; returns the fund account to pay. If two withdrawals prepared the payee at once,
    the first answer stays.
    """
    values = {
        "id": new_id(),
        "user_id": step.user_id,
        "upi_id": step.upi_id,
        "contact_id": answer.contact_id,
        "fund_account_id": answer.fund_account_id,
        "known_to": provider().identity(),
    }
    batches.add_query(session, SAVE(**values))
    return case.fund_account_id or answer.fund_account_id


def end_destination(session: Session, withdrawal: Withdrawal, attempt: PayoutAttempt) -> None:
    """End the payee's ids, which a refusal reported as invalid; a new attempt prepares the payee again."""
    session.flush()  # the database ends a destination only if the attempt's refusal is stored
    session.execute(
        update(Destination)
        .where(
            Destination.user_id == withdrawal.user_id,
            Destination.upi_id == withdrawal.upi_id,
            # Another attempt may have replaced the destination since.
            Destination.fund_account_id == provider().payee_of(attempt.request_body),
            Destination.ended_at.is_(None),
        )
        .values(ended_at=func.now())
        .execution_options(synchronize_session=False)
    )
