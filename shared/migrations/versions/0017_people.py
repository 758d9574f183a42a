"""Two people are two: who operators are beside their names, proof at a shell, origins"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def _is_another(one: str, other: str) -> str:
    return " <> ".join(f"lower(btrim(normalize({column}, NFKC)))" for column in (one, other))


TWO = {  # table -> constraint, before and now
    "resolutions": (
        "two_people",
        "decided_by IS NULL OR outcome <> 'approved' OR decided_by <> proposed_by",
        f"decided_by IS NULL OR outcome <> 'approved' OR {_is_another('decided_by', 'proposed_by')}",
    ),
    "adjustments": (
        "two_people",
        "NOT needs_two OR decided_by IS NULL OR outcome <> 'approved' OR decided_by <> proposed_by",
        "NOT needs_two OR decided_by IS NULL OR outcome <> 'approved'"
        f" OR {_is_another('decided_by', 'proposed_by')}",
    ),
    "reviews": (
        "not_their_own",
        "outcome <> 'approved' OR decided_by <> requested_by",
        f"outcome <> 'approved' OR {_is_another('decided_by', 'requested_by')}",
    ),
}

# Decisions of before that were one person's under two spellings stay in the books; new ones are held to it.
CHECK = """
    DO $$ BEGIN
        ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({rule});
    EXCEPTION WHEN check_violation THEN
        ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID;
    END $$
"""


def upgrade() -> None:
    _operators()
    _tokens()
    for table, (name, _, now) in TWO.items():
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
        op.execute(CHECK.format(table=table, name=f"ck_{table}_{name}", rule=now))
    op.add_column("audit_log", sa.Column("origin", sa.Text()))
    op.create_check_constraint(
        op.f("ck_audit_log_origin"), "audit_log", "origin IN ('api', 'cli', 'panel', 'system')"
    )


def _operators() -> None:
    for column in ("user_id", "email", "phone"):
        op.add_column("operators", sa.Column(column, sa.Text()))
        op.create_index(
            f"uq_operators_{column}",
            "operators",
            [sa.text("lower(email)") if column == "email" else column],
            unique=True,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def _tokens() -> None:
    op.create_table(
        "operator_tokens",
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.CheckConstraint(
            "expires_at <= created_at + interval '8 hours'", name=op.f("ck_operator_tokens_short_lived")
        ),
        sa.ForeignKeyConstraint(["operator"], ["operators.name"], name=op.f("fk_operator_tokens_operator")),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_operator_tokens")),
    )
    op.create_index("ix_operator_tokens_operator", "operator_tokens", ["operator"])


def downgrade() -> None:
    """Forgets what operators are known by, and from where acts came."""
    op.drop_constraint(op.f("ck_audit_log_origin"), "audit_log")
    op.drop_column("audit_log", "origin")
    for table, (name, before, _) in TWO.items():
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
        op.execute(CHECK.format(table=table, name=f"ck_{table}_{name}", rule=before))
    op.drop_table("operator_tokens")
    for column in ("user_id", "email", "phone"):
        op.drop_index(f"uq_operators_{column}", "operators")
        op.drop_column("operators", column)
