"""The verbs of a withdrawal's life, in the order in which they happen.

    request  cancel            the user's wish                       requesting.py
    approve_review  reject_review   a person's word before it is sent   reviewing.py
    claim                      a worker takes what is due            claiming.py
    record_answer              and writes down what came of it       recording.py
    apply_report               the one door for what RazorpayX says  reporting.py
    take_hint                  a webhook: it makes us ask            hinting.py
    sweep                      due work that nobody holds            sweeping.py
    pause    resume            when payouts must not be sent         pausing.py
    propose  approve  reject   people decide                         resolving.py
    add_note  retry_now  ask_now  what one operator may do           operating.py
    find     history           what callers may read                 reading.py
    search                     what operators may find               searching.py

A status changes in `journey.py`, and nowhere else.
"""

from shared.withdrawals.claiming import claim
from shared.withdrawals.hinting import take_hint
from shared.withdrawals.operating import add_note, ask_now, retry_now
from shared.withdrawals.pausing import pause, resume
from shared.withdrawals.reading import Page, find, history
from shared.withdrawals.recording import put_off, record_answer
from shared.withdrawals.reporting import apply_report
from shared.withdrawals.requesting import cancel, refusal, request
from shared.withdrawals.resolving import approve, propose, reject
from shared.withdrawals.reviewing import approve_review, reject_review
from shared.withdrawals.sweeping import sweep

__all__ = [
    "Page",
    "add_note",
    "apply_report",
    "approve",
    "approve_review",
    "ask_now",
    "cancel",
    "claim",
    "find",
    "history",
    "pause",
    "propose",
    "put_off",
    "record_answer",
    "refusal",
    "reject",
    "reject_review",
    "request",
    "resume",
    "retry_now",
    "sweep",
    "take_hint",
]
