"""The severity of an exception record, by its kind. Lists and mails show the most severe first.

    critical   money may be lost or paid twice, or the records contradict each other: act now
    warning    a user waits for an operator, or something is unavailable: act today
    notice     no user waits and no money is at risk

A kind that is not listed here is a warning.
"""

from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """A severity, the most severe first."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"

    @property
    def rank(self) -> int:
        """0 for the most severe."""
        return list(Severity).index(self)


# Part of the kinds that contradict an outcome for which money moved, such as "processed_after_failed".
CONTRADICTION = "_after_"
CRITICAL: Final = frozenset(
    {
        "promise_broken",
        "two_payouts",
        "reference_differs",
        "refunded_but_alive",
        "reversed_not_refunded",
        "unknown_to_us",
        "amount_differs",
        "debit_differs",
        "utr_of_another",
        "utr_twice",
        "webhook_untrue",  # someone else has the secret
    }
)
NOTICE: Final = frozenset({"fees_differ", "webhooks_out", "mail"})


def severity_of(kind: str) -> Severity:
    """Return the severity of a record of this kind."""
    if kind in CRITICAL or CONTRADICTION in kind:
        return Severity.CRITICAL
    return Severity.NOTICE if kind in NOTICE else Severity.WARNING


def _sql_list(kinds: frozenset[str]) -> str:
    return ", ".join(f"'{kind}'" for kind in sorted(kinds))


# The rank of `kind` in SQL.
RANK = (
    f"CASE WHEN kind IN ({_sql_list(CRITICAL)}) OR strpos(kind, '{CONTRADICTION}') > 0"
    f" THEN {Severity.CRITICAL.rank}"
    f" WHEN kind IN ({_sql_list(NOTICE)}) THEN {Severity.NOTICE.rank} ELSE {Severity.WARNING.rank} END"
)
