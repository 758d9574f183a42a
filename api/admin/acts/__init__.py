"""What operators can do to a withdrawal, by the word that stands in addresses and in the audit log.

The verbs are those of `shared/withdrawals`; nothing here changes a row. To add one: an Act in a room.
"""

from api.admin.acts import alone, review, two_people
from api.admin.acts.base import Act, Given, Seen

__all__ = ["ACTS", "Act", "Given", "Seen"]

ACTS: dict[str, Act] = {act.word: act for act in (*review.ACTS, *alone.ACTS, *two_people.ACTS)}
