"""The lists that RazorpayX answers with: look-ups, balances, pages. Pure, like `answers.py`.

Only a whole, consistent, empty list is an absence. Whatever contradicts itself is Unknown.
"""

from typing import Any

from shared.razorpayx.answers import (
    Found,
    NotTaken,
    Refused,
    Reply,
    Unknown,
    paise,
    parse_report,
    read_error,
    read_json,
)


def read_list(reply: Reply, *, reference_id: str) -> Found | NotTaken:
    """The answer to a look-up by `reference_id`."""
    items = read_items(reply, whole=True)
    if not isinstance(items, list):
        return items
    reports = [parse_report(item) for item in items]
    if any(report is None or report.reference_id != reference_id for report in reports):
        return Unknown("The list has something else in it", reply.status)
    return Found(tuple(report for report in reports if report))


def read_balance(reply: Reply, *, account_number: str) -> int | NotTaken:
    """What one account can pay, in paise, from the list of balances."""
    items = read_items(reply, whole=True)
    if not isinstance(items, list):
        return items
    ours = [item for item in items if isinstance(item, dict) and item.get("account_number") == account_number]
    available = paise(ours[0].get("available_amount")) if len(ours) == 1 else None
    return Unknown("The answer does not tell our balance", reply.status) if available is None else available


def read_items(reply: Reply, *, whole: bool = False) -> list[Any] | NotTaken:
    """The rows of a list, if the page agrees with itself (razorpayx.md §1): `entity` is `collection`, and
    `count` is the number of `items`. `whole`: the page must also be all that there is.

    An empty page gives coins back, so a page that contradicts itself is Unknown and never an absence.
    """
    if not 200 <= reply.status < 300:
        return read_error(reply)
    page = read_json(reply.body)
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        return Unknown("The answer is not a list", reply.status)
    if fault := _contradiction(page, whole=whole):
        return Unknown(f"The list contradicts itself: {fault}", reply.status)
    items: list[Any] = page["items"]
    return items


def _contradiction(page: dict[str, Any], *, whole: bool) -> str | None:
    items, count = page["items"], page.get("count")
    ids = [item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
    if page.get("entity") != "collection" or type(count) is not int or count != len(items):
        return "entity, count and items do not agree"
    if page.get("error") is not None:
        return "it holds an error too"
    if page.get("has_more") not in (None, False) and (whole or not items):
        return "it says that there is more"
    return "it holds a row twice" if len(ids) != len(set(ids)) else None


def says_absent(answer: NotTaken) -> bool:
    """Whether a fetch by id was refused because there is nothing with this id (razorpayx.md §4.2).

    Any other refusal says nothing about the payout.
    """
    words = answer.description.lower()
    return isinstance(answer, Refused) and ("does not exist" in words or "is not a valid id" in words)
