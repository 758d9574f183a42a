"""Reconcile our ledger with the provider's payouts and account statement.

fetch.py       both sides of a period as pairs; our_payouts.py reads ours, the provider's listing theirs
diff.py        mismatches within a pair (pure)
run.py         one run: apply updates, compare again, record exceptions
findings.py    a finding becomes one exception record
day_totals.py  the period's totals, which must leave no remainder (pure)
days.py        which day to compare next
report.py      the CSV list and the summary page for finance
owed_coins.py  coins that our own ledger says are owed
coverage.py    which days are compared and which are missing
"""

from shared.reconciliation.run import Result, reconcile

__all__ = ["Result", "reconcile"]
