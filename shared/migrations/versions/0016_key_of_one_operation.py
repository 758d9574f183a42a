"""A key of an app's belongs to the operation that first used it, for good"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

# What the caller gave, and for what: a withdrawal of its own has the key as it is, an item of a batch its place
# behind it, a row of an import its reference (request.py, api/batches.py, importing/parse.py). Not STRICT:
# so they are inlined, and an update of a withdrawal calls nothing for its index.
FUNCTIONS = (
    """
    CREATE FUNCTION given_key(key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN starts_with(key, ' import ') THEN substr(key, 9) ELSE split_part(key, ' ', 1) END
    """,
    """
    CREATE FUNCTION key_operation(key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN starts_with(key, ' import ') THEN 'import'
                WHEN strpos(key, ' ') > 0 THEN 'batch' ELSE 'withdraw' END
    """,
    # No unique index can say this: a batch may hold many wishes of one user. The wallet's lock, which whoever
    # asks holds already, makes two operations at the same moment wait for each other.
    """
    CREATE FUNCTION refuse_key_of_another_operation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM wallets WHERE user_id = NEW.user_id FOR UPDATE;
        IF EXISTS (SELECT FROM withdrawals
                   WHERE user_id = NEW.user_id AND idempotency_key IS NOT NULL
                   AND given_key(idempotency_key) = given_key(NEW.idempotency_key)
                   AND key_operation(idempotency_key) <> key_operation(NEW.idempotency_key)) THEN
            RAISE EXCEPTION 'the key of withdrawal % was used for another operation', NEW.id
                USING ERRCODE = 'unique_violation', CONSTRAINT = 'one_operation_per_key';
        END IF;
        RETURN NULL;
    END $$
    """,
)


def upgrade() -> None:
    for function in FUNCTIONS:
        op.execute(function)
    op.create_index(
        "ix_withdrawals_given_key",
        "withdrawals",
        ["user_id", sa.literal_column("given_key(idempotency_key)")],
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    # After the row, so that the same request again meets the row of the first one, as before.
    op.execute(
        "CREATE TRIGGER one_operation_per_key AFTER INSERT ON withdrawals"
        " FOR EACH ROW WHEN (NEW.idempotency_key IS NOT NULL)"
        " EXECUTE FUNCTION refuse_key_of_another_operation()"
    )
    # Batches had a name of their own. Where both are there, the key was used twice already: the batch's row
    # stays behind, and the batch sent once more is refused.
    op.execute(
        "UPDATE idempotent_requests r SET key = left(key, -6) WHERE operation = 'batch' AND key LIKE '% batch'"
        " AND NOT EXISTS (SELECT FROM idempotent_requests o"
        " WHERE o.actor = r.actor AND o.key = left(r.key, -6))"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION refuse_key_of_another_operation() CASCADE")  # and the trigger that calls it
    op.drop_index("ix_withdrawals_given_key", "withdrawals")
    op.execute("DROP FUNCTION key_operation(text)")
    op.execute("DROP FUNCTION given_key(text)")
    op.execute("UPDATE idempotent_requests SET key = key || ' batch' WHERE operation = 'batch'")
