"""Two admins: invitations, second factors with recovery codes, and what one proposes and another confirms"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")

RULES = (
    # Who once was an admin with a password stays known as one, whatever becomes of them.
    """
    CREATE FUNCTION remember_admins() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.was_admin := (NEW.role = 'admin' AND NEW.password_hash IS NOT NULL)
                         OR (TG_OP = 'UPDATE' AND OLD.was_admin);
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER remember_admins BEFORE INSERT OR UPDATE ON operators
    FOR EACH ROW EXECUTE FUNCTION remember_admins()
    """,
    # What was proposed never changes; it is decided once, and claimed once.
    """
    CREATE FUNCTION refuse_other_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (OLD.id, OLD.kind, OLD.subject, OLD.wanted, OLD.fingerprint, OLD.alone, OLD.reason, OLD.proposed_by,
            OLD.proposed_at, OLD.expires_at)
           IS DISTINCT FROM (NEW.id, NEW.kind, NEW.subject, NEW.wanted, NEW.fingerprint, NEW.alone, NEW.reason,
            NEW.proposed_by, NEW.proposed_at, NEW.expires_at)
           OR (OLD.decided_at IS NOT NULL AND (OLD.outcome, OLD.decided_by, OLD.decided_at)
               IS DISTINCT FROM (NEW.outcome, NEW.decided_by, NEW.decided_at))
           OR OLD.claimed_at IS NOT NULL
        THEN
            RAISE EXCEPTION 'what proposal % says never changes', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER same_proposal BEFORE UPDATE ON admin_proposals
    FOR EACH ROW EXECUTE FUNCTION refuse_other_proposal()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON admin_proposals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
    """
    CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON operator_invitations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()
    """,
)
# The versions that are evidence (0021): proposals have them too, and a secret that is only offered has none.
VERSION = """
    CREATE TRIGGER version AFTER INSERT OR UPDATE ON {table} FOR EACH ROW
    EXECUTE FUNCTION write_version('{key}', '{{{never}}}', '{{{hashed}}}')
"""
HASHED = "password_hash,totp_secret"
NEVER = "last_sign_in_at,totp_step"
FUNCTIONS = ("remember_admins", "refuse_other_proposal")


def upgrade() -> None:
    _operators()
    _invitations()
    _recovery_codes()
    _proposals()
    for rule in RULES:
        op.execute(rule)
    op.execute(VERSION.format(table="admin_proposals", key="id", never="", hashed=""))
    op.execute("DROP TRIGGER version ON operators")
    never = f"{NEVER},totp_offered"
    op.execute(VERSION.format(table="operators", key="name", never=never, hashed=HASHED))


def _operators() -> None:
    op.alter_column("operators", "password_hash", nullable=True)
    for name in ("totp_offered", "confirmed_by"):
        op.add_column("operators", sa.Column(name, sa.Text()))
    op.add_column(
        "operators", sa.Column("was_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.execute("UPDATE operators SET was_admin = true WHERE role = 'admin'")


def _invitations() -> None:
    op.create_table(
        "operator_invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
        sa.Column("ended_at", TIME),
        sa.CheckConstraint(
            "used_at IS NULL OR ended_at IS NULL", name=op.f("ck_operator_invitations_used_or_ended")
        ),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.name"], name=op.f("fk_operator_invitations_operator")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_invitations")),
    )
    op.create_index(
        "uq_one_open_invitation",
        "operator_invitations",
        ["operator"],
        unique=True,
        postgresql_where=sa.text("used_at IS NULL AND ended_at IS NULL"),
    )


def _recovery_codes() -> None:
    op.create_table(
        "operator_recovery_codes",
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("code_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("used_at", TIME),
        sa.ForeignKeyConstraint(
            ["operator"], ["operators.name"], name=op.f("fk_operator_recovery_codes_operator")
        ),
        sa.PrimaryKeyConstraint("operator", "code_sha256", name=op.f("pk_operator_recovery_codes")),
    )


def _proposals() -> None:
    truths = {
        "has_a_reason": "length(reason) > 0",
        "outcome": "outcome IN ('confirmed', 'rejected')",
        "decided_by_someone": "(decided_at IS NULL) = (outcome IS NULL)"
        " AND (decided_at IS NULL) = (decided_by IS NULL)",
        "two_people": "alone OR decided_by IS NULL OR outcome <> 'confirmed' OR decided_by <> proposed_by",
        "confirmed_in_time": "outcome IS DISTINCT FROM 'confirmed' OR decided_at <= expires_at",
        "claimed_when_confirmed": "claimed_at IS NULL OR outcome = 'confirmed'",
    }
    op.create_table(
        "admin_proposals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("wanted", JSON, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("proposed_at", TIME, server_default=NOW, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_at", TIME),
        sa.Column("claimed_at", TIME),
        *(
            sa.CheckConstraint(truth, name=op.f(f"ck_admin_proposals_{name}"))
            for name, truth in truths.items()
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_proposals")),
    )
    op.create_index(
        "uq_one_open_admin_proposal",
        "admin_proposals",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("decided_at IS NULL"),
    )
    op.create_index("ix_admin_proposals_proposed", "admin_proposals", ["proposed_at"])


def downgrade() -> None:
    """Forgets recovery codes and what was proposed (its versions stay); who has no password is disabled."""
    op.drop_table("admin_proposals")
    op.drop_table("operator_recovery_codes")
    op.drop_table("operator_invitations")
    op.execute("DROP TRIGGER version ON operators")
    op.execute(VERSION.format(table="operators", key="name", never=NEVER, hashed=HASHED))
    op.execute("DROP TRIGGER remember_admins ON operators")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    op.execute(
        "UPDATE operators SET password_hash = '!', disabled_at = coalesce(disabled_at, now()),"
        " disabled_by = coalesce(disabled_by, 'migration') WHERE password_hash IS NULL"
    )
    for name in ("totp_offered", "confirmed_by", "was_admin"):
        op.drop_column("operators", name)
    op.alter_column("operators", "password_hash", nullable=False)
