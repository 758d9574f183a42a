"""A batch's UPDATE fails unless it finds every row as it was read."""

from alembic import op

revision = "0028"
down_revision = "0027"

REQUIRE_ROWS = """
    CREATE FUNCTION require_rows(changed bigint, expected bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN
        IF changed <> expected THEN
            RAISE EXCEPTION '% of % rows have changed since they were read', expected - changed, expected
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN changed;
    END $$
"""


def upgrade() -> None:
    op.execute(REQUIRE_ROWS)


def downgrade() -> None:
    op.execute("DROP FUNCTION require_rows(bigint, bigint)")
