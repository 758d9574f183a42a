"""What gives somebody more than they had: one admin proposes it, a second confirms it, all admins are mailed.

    propose                what one person wants, and why                    deciding.py
    confirm  reject        a second person's word, bound to what was shown   deciding.py
    claim                  the secret of a key or an endpoint, shown once    deciding.py
    KINDS                  what can be proposed, and what each does          kinds.py
    disable  lower_role    what takes something away: one admin, at once     at_once.py
    revoke_key  remove_endpoint  end_sessions

Nobody needs a second person for what takes something away: a thief cannot live on that. One admin can keep
everybody else out; that stops work and is seen at once, but it moves no money.
"""

from shared.proposals.at_once import disable, end_sessions, lower_role, remove_endpoint, revoke_key
from shared.proposals.deciding import (
    Confirmed,
    claim,
    confirm,
    confirmed,
    decided_lately,
    find,
    needs_second,
    number_waiting,
    propose,
    reject,
    waiting,
)
from shared.proposals.kinds import KINDS, Kind, must_need_no_file

__all__ = [
    "KINDS",
    "Confirmed",
    "Kind",
    "claim",
    "confirm",
    "confirmed",
    "decided_lately",
    "disable",
    "end_sessions",
    "find",
    "lower_role",
    "must_need_no_file",
    "needs_second",
    "number_waiting",
    "propose",
    "reject",
    "remove_endpoint",
    "revoke_key",
    "waiting",
]
