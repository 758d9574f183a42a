"""How bad an exception record is, by its kind: the worst comes first wherever records are listed or told.

    critical   money may be lost or paid twice, or the books contradict themselves: look at it now
    warning    somebody waits for a person, or something is away: look at it today
    notice     nobody waits and no money is at risk

A kind that is not named here is a warning.
"""

from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How bad it is, the worst first."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


# What contradicts something that moved money: "processed_after_failed" and its like.
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
        "webhook_untrue",  # somebody else signs webhooks
    }
)
NOTICE: Final = frozenset({"fees_differ", "webhooks_out", "mail"})


def of_kind(kind: str) -> Severity:
    """The severity of a record of this kind."""
    if kind in CRITICAL or CONTRADICTION in kind:
        return Severity.CRITICAL
    return Severity.NOTICE if kind in NOTICE else Severity.WARNING


def _in(kinds: frozenset[str]) -> str:
    return ", ".join(f"'{kind}'" for kind in sorted(kinds))


# The same for the database: the rank of `kind`.
RANK = (
    f"CASE WHEN kind IN ({_in(CRITICAL)}) OR strpos(kind, '{CONTRADICTION}') > 0"
    f" THEN {Severity.CRITICAL.rank}"
    f" WHEN kind IN ({_in(NOTICE)}) THEN {Severity.NOTICE.rank} ELSE {Severity.WARNING.rank} END"
)
