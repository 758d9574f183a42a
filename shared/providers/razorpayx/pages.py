"""Parse RazorpayX's lists: look-ups, balances, pages. Pure, like `answers.py`.

Only a complete, consistent, empty list means that a payout is absent. An inconsistent list is Unknown.
"""

from typing import Any

from shared.providers.answers import Found, NotAccepted, Refused, Unknown
from shared.providers.razorpayx.answers import (
    Reply,
    paise,
    parse_report,
    read_error,
    read_json,
)


def read_list(reply: Reply, *, reference_id: str) -> Found | NotAccepted:
    """Parse the response to a look-up by `reference_id`."""
    items = read_items(reply, whole=True)
    if not isinstance(items, list):
        return items
    reports = [parse_report(item) for item in items]
    if any(report is None or report.reference_id != reference_id for report in reports):
        return Unknown("The list contains another reference", reply.status)
    return Found(tuple(report for report in reports if report))


def read_balance(reply: Reply, *, account_number: str) -> int | NotAccepted:
    """Return what one account can pay, in paise, from the list of balances."""
    items = read_items(reply, whole=True)
    if not isinstance(items, list):
        return items
    ours = [item for item in items if isinstance(item, dict) and item.get("account_number") == account_number]
    available = paise(ours[0].get("available_amount")) if len(ours) == 1 else None
    return Unknown("The answer lacks our balance", reply.status) if available is None else available


def read_items(reply: Reply, *, whole: bool = False) -> list[Any] | NotAccepted:
    """Return the rows of a consistent page (razorpayx.md §1): `entity` is `collection`, `count` matches
    `items`.

    With `whole`, the page must be the complete list. An empty page refunds coins, so an inconsistent one is
    Unknown.
    """
    if not 200 <= reply.status < 300:
        return read_error(reply)
    page = read_json(reply.body)
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        return Unknown("The answer is not a list", reply.status)
    if fault := _inconsistency(page, whole=whole):
        return Unknown(f"The list is inconsistent: {fault}", reply.status)
    items: list[Any] = page["items"]
    return items


def _inconsistency(page: dict[str, Any], *, whole: bool) -> str | None:
    items = page["items"]
    count = page.get("count")
    ids = [item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
    if page.get("entity") != "collection" or type(count) is not int or count != len(items):
        return "entity, count and items do not match"
    if page.get("error") is not None:
        return "it also contains an error"
    if page.get("has_more") not in (None, False) and (whole or not items):
        return "it has more rows"
    return "it contains a row twice" if len(ids) != len(set(ids)) else None


def is_absent(answer: NotAccepted) -> bool:
    """True if a fetch by id was refused because the id does not exist (razorpayx.md §4.2).

    Any other refusal is no evidence about the payout.
    """
    text = answer.description.lower()
    return isinstance(answer, Refused) and ("does not exist" in text or "is not a valid id" in text)
