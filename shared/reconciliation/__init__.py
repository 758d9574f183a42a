"""Ours against theirs: what RazorpayX lists and what its statement moved, held against our books.

gathering.py   both sides of a period, put together   books.py reads ours, razorpayx/listing.py theirs
comparing.py   what differs in a pair                 pure
running.py     news through the one door, a second look, records
records.py     a finding becomes a record once
summing.py     the day in money, down to zero         pure
papers.py      the list and the page for finance
owed.py        coins that our own books say are owed
standing.py    how far it has come
"""

from shared.reconciliation.running import Result, reconcile

__all__ = ["Result", "reconcile"]
