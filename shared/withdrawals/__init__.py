"""The verbs of a withdrawal's life, in order.

    request  cancel                 the user requests it, or cancels it        request.py
    approve_review  reject_review   an operator approves it before it is sent  review.py
    claim                           a worker claims the next step              claim.py
    record_answer                   and records the provider's answer          record.py
    apply_report                    a provider report takes effect             apply_report.py
    handle_hint                     a webhook makes us query the provider      hints.py
    sweep                           due work that no worker holds is found     sweep.py
    pause  resume                   an operator stops and restarts sending     pauses.py
    propose  approve  reject        two operators decide a doubtful outcome    resolve.py
    add_note  retry_now  query_now  what one operator may do alone             operate.py
    find  history                   callers read withdrawals                   queries.py
    guard  postpone_after_error     a step that raises is retried later        record.py

`transitions.py` alone changes a status. Operators find withdrawals with `search.py`.
"""

from shared.withdrawals.apply_report import apply_report
from shared.withdrawals.claim import claim
from shared.withdrawals.hints import handle_hint
from shared.withdrawals.operate import add_note, query_now, retry_now
from shared.withdrawals.pauses import pause, resume
from shared.withdrawals.queries import Page, find, history
from shared.withdrawals.record import guard, postpone_after_error, record_answer
from shared.withdrawals.request import balance_error, cancel, request
from shared.withdrawals.resolve import approve, propose, reject
from shared.withdrawals.review import approve_review, reject_review
from shared.withdrawals.sweep import sweep

__all__ = [
    "Page",
    "add_note",
    "apply_report",
    "approve",
    "approve_review",
    "balance_error",
    "cancel",
    "claim",
    "find",
    "guard",
    "handle_hint",
    "history",
    "pause",
    "postpone_after_error",
    "propose",
    "query_now",
    "record_answer",
    "reject",
    "reject_review",
    "request",
    "resume",
    "retry_now",
    "sweep",
]
