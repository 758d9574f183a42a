"""`payouts check` in one statement, for the end of each of three thousand tests.

It only says that something may be wrong; `payouts check` then says what. It takes a millisecond, and forty
statements take nearly thirty.
"""

from psycopg import sql
from sqlalchemy import Connection

from shared.proof.checks import CHECKS, COINS_CONSERVED, SELECT_TOTALS
from shared.proof.evidence import SESSION_FORMAT, VERSIONED_TABLES, faults_sql
from shared.proof.seal_checks import EVIDENCE_UNCHANGED
from shared.proof.sealing import LATE_SECONDS, SOURCES

# Python checks the seals. Few tests seal rows, or leave rows behind that are old enough to need a seal.
SEALS = "the seals"
LATE = f"< now() - interval '{LATE_SECONDS} seconds'"
QUERIES = (
    *((check.invariant, check.sql) for check in CHECKS),
    (COINS_CONSERVED.invariant, f"SELECT FROM ({SELECT_TOTALS}) t WHERE credited <> balances + held + paid"),
    *((EVIDENCE_UNCHANGED, faults_sql(versioned)) for versioned in VERSIONED_TABLES),
    (
        SEALS,
        "SELECT FROM seal_blocks UNION ALL SELECT FROM seal_leaves UNION ALL SELECT FROM day_certificates",
    ),
    *((SEALS, f"SELECT FROM {source.table} WHERE {source.time_column} {LATE}") for source in SOURCES),
)
SELECT_SUSPICIONS = "SELECT array_remove(ARRAY[{}], NULL)".format(
    ", ".join(
        f"CASE WHEN EXISTS ({query}) THEN {sql.Literal(invariant).as_string()} END"
        for invariant, query in QUERIES
    )
)


def suspicions(connection: Connection) -> list[str]:
    """The invariants that may be violated: exact for the checks in SQL, and SEALS if there is anything to check."""
    connection.exec_driver_sql(SESSION_FORMAT)
    names: list[str] = connection.exec_driver_sql(SELECT_SUSPICIONS).scalar_one()
    return names
