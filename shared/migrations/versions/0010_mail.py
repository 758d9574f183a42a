"""Mail to users and operators"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _listeners()
    _emails()
    op.create_table(
        "told_records",
        sa.Column("record_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("record_id", name=op.f("pk_told_records")),
    )
    # Who follows the records by their ids needs whoever holds one to have a transaction number already.
    # A statement's trigger runs before its rows get their ids, and so before it may wait for another's.
    op.execute("""
        CREATE FUNCTION number_first() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_current_xact_id();
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER number_first BEFORE INSERT ON exception_records"
        " FOR EACH STATEMENT EXECUTE FUNCTION number_first()"
    )


def _listeners() -> None:
    op.create_table(
        "mail_listeners",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("followed_to", sa.BigInteger(), nullable=False),
        sa.Column("mark_to", sa.BigInteger()),
        sa.Column("mark_xid", sa.BigInteger()),
        sa.Column("told_at", TIME),
        sa.CheckConstraint("name IN ('operators', 'users')", name=op.f("ck_mail_listeners_name")),
        sa.CheckConstraint(
            "(mark_to IS NULL) = (mark_xid IS NULL)", name=op.f("ck_mail_listeners_marked_as_a_whole")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mail_listeners")),
    )


def _emails() -> None:
    truths = {
        "state": "state IN ('failed', 'sent', 'skipped', 'waiting')",
        "of_one_thing": "(event_id IS NULL) <> (group_id IS NULL)",
        "event_has_a_withdrawal": "(event_id IS NULL) = (withdrawal_id IS NULL)",
        "has_a_recipient": "state = 'skipped' OR recipient IS NOT NULL",
        "due_iff_waiting": "(state = 'waiting') = (due_at IS NOT NULL)",
        "sent_at_iff_sent": "(state = 'sent') = (sent_at IS NOT NULL)",
        "says_why_not": "state NOT IN ('failed', 'skipped') OR last_error IS NOT NULL",
        "leased_while_waiting": "leased_until IS NULL OR state = 'waiting'",
        "server_failed_while_waiting": "server_failed_at IS NULL OR state = 'waiting'",
        "unsure_tries": "unsure BETWEEN 0 AND tries",
    }
    op.create_table(
        "emails",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.BigInteger()),
        sa.Column("withdrawal_id", sa.Uuid()),
        sa.Column("group_id", sa.Uuid()),
        sa.Column("recipient", sa.Text()),
        sa.Column("facts", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("due_at", TIME, server_default=sa.text("now()")),
        sa.Column("leased_until", TIME),
        sa.Column("server_failed_at", TIME),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unsure", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("began_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", TIME),
        *(sa.CheckConstraint(truth, name=op.f(f"ck_emails_{name}")) for name, truth in truths.items()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_emails")),
        sa.UniqueConstraint("event_id", "recipient", name=op.f("uq_emails_event_id_recipient")),
        sa.UniqueConstraint("group_id", "recipient", name=op.f("uq_emails_group_id_recipient")),
    )
    where = {
        "ix_emails_due": ("due_at", "state = 'waiting'"),
        "ix_emails_began": ("began_at", "state = 'waiting'"),
        "ix_emails_leased": ("leased_until", "leased_until IS NOT NULL"),
        "ix_emails_refused": ("server_failed_at", "server_failed_at IS NOT NULL"),
        "ix_emails_failed": ("created_at", "state = 'failed'"),
    }
    for name, (column, condition) in where.items():
        op.create_index(name, "emails", [column], postgresql_where=sa.text(condition))
    op.create_index("ix_emails_withdrawal", "emails", ["withdrawal_id"])
    op.create_index("ix_emails_created", "emails", ["created_at"])
    # Another message under an id that a server has seen would be dropped by it as the one before.
    op.execute("""
        CREATE FUNCTION refuse_other_email() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (OLD.id, OLD.event_id, OLD.group_id, OLD.withdrawal_id, OLD.recipient, OLD.facts)
               IS DISTINCT FROM (NEW.id, NEW.event_id, NEW.group_id, NEW.withdrawal_id, NEW.recipient, NEW.facts)
            THEN
                RAISE EXCEPTION 'what mail % tells never changes', OLD.id USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER same_email BEFORE UPDATE ON emails FOR EACH ROW EXECUTE FUNCTION refuse_other_email()"
    )


def downgrade() -> None:
    """Forgets what was mailed; nothing of the money is in it."""
    op.execute("DROP TRIGGER number_first ON exception_records")
    for table in ("told_records", "emails", "mail_listeners"):
        op.drop_table(table)
    op.execute("DROP FUNCTION number_first()")
    op.execute("DROP FUNCTION refuse_other_email()")
