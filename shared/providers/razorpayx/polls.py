"""Poll many payouts with a few pages of the list, instead of one call each.

Confirmations would otherwise take half of the rate limit. A list may be older than the payouts in it, and
lack some (`listing.py`). So a row counts only if it shows the whole payment, as a fetch of the payout would;
whatever else it shows, or does not show, is no answer, and that payout is fetched by its id.
"""

from collections.abc import Sequence
from datetime import timedelta

from shared.providers.answers import Accepted, Answer, PayoutReport, Throttled
from shared.providers.razorpayx.answers import Reply
from shared.providers.razorpayx.listing import PAGE_ROWS, PageSource
from shared.providers.razorpayx.statements import parse_payout, read_page
from shared.providers.steps import Poll

POLLS_FOR_A_PAGE = 5  # each page must be able to save so many calls
SECOND = timedelta(seconds=1)  # it is not documented whether `from` and `to` are inclusive


def poll_many(source: PageSource, account_number: str, polls: Sequence[Poll]) -> dict[Poll, Answer]:
    """Return the answers to those of these polls that the list shows paid. If it is throttled, so are all."""
    created_at = [poll.created_at for poll in polls if poll.created_at]
    if not created_at:
        return {}
    left = {poll.payout_id: poll for poll in polls}
    answers: dict[Poll, Answer] = {}
    query: dict[str, str | int] = {
        "account_number": account_number,
        "from": int((min(created_at) - SECOND).timestamp()),
        "to": int((max(created_at) + SECOND).timestamp()),
        "count": PAGE_ROWS,
    }
    for number in range(len(polls) // POLLS_FOR_A_PAGE):
        reply = source.get("/v1/payouts", {**query, "skip": number * PAGE_ROWS})
        page = read_page(reply, parse_payout) if isinstance(reply, Reply) else reply
        if isinstance(page, Throttled) and page.cause in ("busy", "paced", "unreachable"):
            return answers | dict.fromkeys(left.values(), page)
        if not isinstance(page, list):
            break
        for row in page:
            if row.id in left and _is_payment(row.report, left[row.id]):
                answers[left.pop(row.id)] = Accepted(row.report)
        if not left or len(page) < PAGE_ROWS:
            break
    return answers


def _is_payment(report: PayoutReport, poll: Poll) -> bool:
    return (
        report.outcome == "paid"
        and report.utr is not None
        and report.amount_paise == poll.amount_paise
        and report.reference_id == str(poll.attempt_id)
    )
