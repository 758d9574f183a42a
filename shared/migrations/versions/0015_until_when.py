"""What waits says until when: a promise without a time would never count as late"""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    # None is known. If there is one, it becomes overdue when it is next looked at, and a person is told.
    op.execute(
        "UPDATE withdrawals SET expected_by = due_at"
        " WHERE status IN ('pending', 'processing') AND expected_by IS NULL"
    )
    op.create_check_constraint(
        op.f("ck_withdrawals_waits_until_a_time"),
        "withdrawals",
        "NOT (status IN ('pending', 'processing')) OR expected_by IS NOT NULL",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_withdrawals_waits_until_a_time"), "withdrawals")
