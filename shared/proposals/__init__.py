"""Proposals that grant permissions: one admin proposes, a second confirms, and all admins are mailed.

    propose                an admin proposes a change, with a reason             decisions.py
    confirm  reject        a second admin decides, on the facts that were shown  decisions.py
    claim                  the maker sees the secret of a key or endpoint, once  decisions.py
    KINDS                  what can be proposed, and how it is carried out       kinds.py
    disable  lower_role    one admin removes permissions, at once                removals.py
    revoke_key  remove_endpoint  end_sessions

Removing permissions needs no second admin: a thief gains nothing by it. One admin can lock all others out,
which stops work and is noticed at once, but moves no money.
"""

from shared.proposals.decisions import (
    ProposalResult,
    claim,
    confirm,
    count_open,
    find,
    latest_confirmation,
    needs_second_person,
    open_proposals,
    propose,
    recently_decided,
    reject,
)
from shared.proposals.kinds import KINDS, Kind, require_no_file
from shared.proposals.removals import disable, end_sessions, lower_role, remove_endpoint, revoke_key

__all__ = [
    "KINDS",
    "Kind",
    "ProposalResult",
    "claim",
    "confirm",
    "count_open",
    "disable",
    "end_sessions",
    "find",
    "latest_confirmation",
    "lower_role",
    "needs_second_person",
    "open_proposals",
    "propose",
    "recently_decided",
    "reject",
    "remove_endpoint",
    "require_no_file",
    "revoke_key",
]
