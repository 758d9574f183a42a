"""The verbs of a withdrawal's life, in order.

    request  cancel                 the user requests it, or cancels it        request.py
    approve_review  reject_review   an operator approves it before it is sent  review.py
    claim                           a worker claims the next steps             claim.py
    record_answers                  and records the provider's answers         record.py
    bring_on                        the three together, for a batch            bring_on.py
    apply_report                    a provider report takes effect             apply_report.py
    handle_hints                    webhooks make us query the provider        hints.py
    sweep  sweep_sends  refill      due work that no worker holds is found     sweep.py
    mark_as_paced                   what waits for its turn gets a time        expectations.py
    pause  resume                   an operator stops and restarts sending     pauses.py
    propose  approve  reject        two operators decide a doubtful outcome    resolve.py
    add_note  retry_now  query_now  what one operator may do alone             operate.py
    find  history                   callers read withdrawals                   queries.py
    postpone_after_error            a step that raises is retried later        record.py

`transitions.py` alone changes a status. Operators find withdrawals with `search.py`.
"""

from shared.withdrawals.apply_report import apply_report
from shared.withdrawals.bring_on import bring_on
from shared.withdrawals.claim import claim
from shared.withdrawals.expectations import mark_as_paced
from shared.withdrawals.hints import handle_hints
from shared.withdrawals.operate import add_note, query_now, retry_now
from shared.withdrawals.pauses import pause, resume
from shared.withdrawals.queries import Page, find, history
from shared.withdrawals.record import postpone_after_error, record_answers
from shared.withdrawals.request import balance_error, cancel, request
from shared.withdrawals.resolve import approve, propose, reject
from shared.withdrawals.review import approve_review, reject_review
from shared.withdrawals.sweep import refill, sweep, sweep_sends

__all__ = [
    "Page",
    "add_note",
    "apply_report",
    "approve",
    "approve_review",
    "balance_error",
    "bring_on",
    "cancel",
    "claim",
    "find",
    "handle_hints",
    "history",
    "mark_as_paced",
    "pause",
    "postpone_after_error",
    "propose",
    "query_now",
    "record_answers",
    "refill",
    "reject",
    "reject_review",
    "request",
    "resume",
    "retry_now",
    "sweep",
    "sweep_sends",
]
