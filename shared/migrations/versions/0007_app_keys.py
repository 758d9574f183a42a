"""The keys of apps, by their hashes"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "app_keys",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("revoked_by", sa.Text()),
        sa.Column("last_used_at", TIME),
        sa.CheckConstraint("length(app) BETWEEN 1 AND 50", name=op.f("ck_app_keys_app_length")),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['withdraw', 'read', 'credit']",
            name=op.f("ck_app_keys_scopes"),
        ),
        sa.CheckConstraint(
            "(revoked_at IS NULL) = (revoked_by IS NULL)", name=op.f("ck_app_keys_revoked_by_someone")
        ),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_app_keys")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_app_keys_secret_sha256")),
    )
    op.execute(
        "CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON app_keys"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()"
    )


def downgrade() -> None:
    op.drop_table("app_keys")
