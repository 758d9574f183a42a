"""Read and change entities: the rest of /v1.

`MD:api/x/payouts/fetch-all.md`, `MD:api/x/payouts/cancel.md`, `MD:api/x/contacts/update.md`,
`MD:api/x/transactions.md`, `MD:api/x/account-validation/balance-fetch.md`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from . import creates, errors, faults, rules
from .core import SIM, Sim
from .entities import collection, contact_entity, fund_account_entity, make_contradictory, payout_entity
from .reasons import STATUSES
from .state import Payout, contact_identity

_WHOLE = re.compile(r"[0-9]{1,12}")
PAGING = ("from", "to", "count", "skip")


def _whole(query: Mapping[str, str], name: str, default: int | None, high: int | None = None) -> int | None:
    """A whole number in the query, within bounds."""
    if name not in query:
        return default
    if not _WHOLE.fullmatch(query[name]):
        raise errors.ApiError(f"The {name} must be an integer.", field=name)
    value = int(query[name])
    if high is not None and value > high:
        raise errors.ApiError(f"The {name} may not be greater than {high}", field=name)
    return value


def _page(
    request: web.Request, items: Iterable[Any], render: Callable[[Any], dict[str, Any]]
) -> web.Response:
    """`count` (10, at most 100) after `skip` (`MD:api/understand.md`)."""
    query = request.query
    count = _whole(query, "count", 10, 100)
    skip = _whole(query, "skip", 0)
    assert count is not None and skip is not None
    if count < 1:
        raise errors.ApiError("The count must be at least 1.", field="count")
    rows = [render(item) for item in itertools.islice(items, skip, skip + count)]
    return faults.json_reply(make_contradictory(collection(rows), request.app[SIM].settings.lists))


def _newest_first(items: Iterable[Any], query: Mapping[str, str]) -> list[Any]:
    """By creation, between `from` and `to`."""
    start = _whole(query, "from", None)
    end = _whole(query, "to", None)
    return [
        item
        for item in reversed(list(items))
        if (start is None or int(item.created_at) >= start) and (end is None or int(item.created_at) <= end)
    ]


def _our_account(sim: Sim, query: Mapping[str, str]) -> None:
    """`account_number` is mandatory on lists of money (`MD:errors/x.md`)."""
    if not query.get("account_number"):
        raise errors.required("account_number")
    if query["account_number"] != sim.config.account_number:
        raise errors.ApiError(
            "The RazorpayX Account number is invalid.", field="account_number", reason=None, source=None
        )


# --- payouts -----------------------------------------------------------------


def _lookup_fault(request: web.Request) -> web.Response | None:
    """The response of the switch `lookups`, which makes lookups fail or return wrong data."""
    state = request.app[SIM].settings.lookups
    if state == "500":
        raise errors.server_error()
    if state == "drop":
        return faults.drop(request)
    if state == "empty":
        if "id" in request.match_info:
            raise errors.ApiError("The id provided does not exist", field="id")
        return faults.json_reply(collection([]))
    return None


async def list_payouts(request: web.Request) -> web.Response:
    """GET /v1/payouts."""
    sim = request.app[SIM]
    query = request.query
    rules.known_fields(
        query, ("account_number", "reference_id", "status", "fund_account_id", "contact_id", "mode", *PAGING)
    )
    _our_account(sim, query)
    if "status" in query and query["status"] not in STATUSES:
        raise errors.ApiError(f"Not a valid status: {query['status'][:40]}", field="status")
    fault = _lookup_fault(request)
    if fault is not None:
        return fault
    return _page(request, _find_payouts(sim, query), lambda p: payout_entity(p, sim.config.account_number))


def _find_payouts(sim: Sim, query: Mapping[str, str]) -> Iterable[Payout]:
    """Matching payouts, newest first. Indexes are used, so that 50,000 other payouts cost nothing."""
    if "reference_id" in query:
        candidates = _newest_first(sim.world.by_reference.get(query["reference_id"], ()), query)
    elif "fund_account_id" in query:
        candidates = _newest_first(sim.world.by_fund_account.get(query["fund_account_id"], ()), query)
    else:
        candidates = sim.world.created_between(_whole(query, "from", None), _whole(query, "to", None))[::-1]
    return (payout for payout in candidates if _matches(payout, query))


def _matches(payout: Payout, query: Mapping[str, str]) -> bool:
    facts = {
        "status": payout.status,
        "mode": payout.fields["mode"],
        "reference_id": payout.fields["reference_id"],
        "fund_account_id": payout.fund_account.id,
        "contact_id": payout.fund_account.contact.id,
    }
    return all(query[name] == fact for name, fact in facts.items() if name in query)


def _payout(request: web.Request) -> Payout:
    return creates.find_by_id(request.app[SIM].world.payouts, request.match_info["id"], "pout_", "id")


async def get_payout(request: web.Request) -> web.Response:
    """GET /v1/payouts/:id."""
    fault = _lookup_fault(request)
    if fault is not None:
        return fault
    return faults.json_reply(payout_entity(_payout(request), request.app[SIM].config.account_number))


async def cancel_payout(request: web.Request) -> web.Response:
    """POST /v1/payouts/:id/cancel; the index says PATCH (`MD:api/x/payouts.md`), so both work."""
    sim = request.app[SIM]
    payout = _payout(request)
    sim.payouts.cancel(payout)
    return faults.json_reply(payout_entity(payout, sim.config.account_number))


# --- contacts and fund accounts ------------------------------------------------


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    if name not in query:
        return None
    if query[name] not in ("0", "1", "true", "false"):
        raise errors.ApiError(f"The {name} field must be true or false.", field=name)
    return query[name] in ("1", "true")


async def list_contacts(request: web.Request) -> web.Response:
    """GET /v1/contacts."""
    sim = request.app[SIM]
    query = request.query
    filters = ("name", "email", "contact", "reference_id", "type")
    rules.known_fields(query, (*filters, "active", *PAGING))
    active = _flag(query, "active")
    contacts = (
        c
        for c in _newest_first(sim.world.contacts.values(), query)
        if active in (None, c.active) and all(query[f] == c.fields[f] for f in filters if f in query)
    )
    return _page(request, contacts, contact_entity)


async def get_contact(request: web.Request) -> web.Response:
    """GET /v1/contacts/:id."""
    return faults.json_reply(
        contact_entity(creates.find_contact(request.app[SIM], request.match_info["id"], "id"))
    )


async def patch_contact(request: web.Request) -> web.Response:
    """PATCH /v1/contacts/:id: any field, and `active` (`MD:api/x/contacts/activate-or-deactivate.md`)."""
    sim = request.app[SIM]
    contact = creates.find_contact(sim, request.match_info["id"], "id")
    body = await creates.parse_body(request)
    active = _active(body, contact.active)
    changed = rules.contact({**contact.fields, **{k: v for k, v in body.items() if k != "active"}})
    if sim.world.contact_by_identity.get(contact.identity()) is contact:
        del sim.world.contact_by_identity[contact.identity()]
    contact.fields = changed
    contact.active = active
    sim.world.contact_by_identity.setdefault(contact_identity(changed), contact)
    return faults.json_reply(contact_entity(contact))


def _active(body: Mapping[str, Any], now: bool) -> bool:
    value = body.get("active", now)
    if value in (0, 1) and isinstance(value, bool | int):
        return bool(value)
    raise errors.ApiError("The active field must be true or false.", field="active")


async def list_fund_accounts(request: web.Request) -> web.Response:
    """GET /v1/fund_accounts."""
    sim = request.app[SIM]
    query = request.query
    rules.known_fields(query, ("contact_id", "account_type", *PAGING))
    accounts = (
        a
        for a in _newest_first(sim.world.fund_accounts.values(), query)
        if query.get("contact_id", a.contact.id) == a.contact.id
        and query.get("account_type", a.kind) == a.kind
    )
    return _page(request, accounts, fund_account_entity)


async def get_fund_account(request: web.Request) -> web.Response:
    """GET /v1/fund_accounts/:id."""
    return faults.json_reply(
        fund_account_entity(creates.find_fund_account(request.app[SIM], request.match_info["id"], "id"))
    )


async def patch_fund_account(request: web.Request) -> web.Response:
    """PATCH /v1/fund_accounts/:id: only `active` can change (`MD:x/fund-accounts/faqs.md`)."""
    account = creates.find_fund_account(request.app[SIM], request.match_info["id"], "id")
    body = await creates.parse_body(request)
    rules.known_fields(body, ("active",))
    if "active" not in body:
        raise errors.required("active")
    account.active = _active(body, account.active)
    return faults.json_reply(fund_account_entity(account))


# --- statement and balance -----------------------------------------------------


async def list_transactions(request: web.Request) -> web.Response:
    """GET /v1/transactions."""
    sim = request.app[SIM]
    query = request.query
    rules.known_fields(query, ("account_number", *PAGING))
    _our_account(sim, query)
    start = _whole(query, "from", None)
    end = _whole(query, "to", None)
    return _page(request, sim.world.transactions_between(start, end)[::-1], dict)


async def get_transaction(request: web.Request) -> web.Response:
    """GET /v1/transactions/:id."""
    transactions = request.app[SIM].world.transaction_by_id
    return faults.json_reply(creates.find_by_id(transactions, request.match_info["id"], "txn_", "id"))


async def balances(request: web.Request) -> web.Response:
    """GET /v1/banking_balances."""
    sim = request.app[SIM]
    query = request.query
    rules.known_fields(query, ("account_type", "bank_code", "count", "skip"))
    kind = "razorpayx_lite" if sim.settings.lite else "current_account"
    if query.get("account_type", kind) not in ("current_account", "razorpayx_lite"):
        raise errors.ApiError("The selected account type is invalid", field="account_type")
    item = {
        "entity": "banking_balance",
        "currency": "INR",
        "account_number": sim.config.account_number,
        "account_type": kind,
        "bank_name": "Yes Bank",
        "bank_code": "YESB",
        "amount": sim.world.balance_paise,
        "available_amount": sim.world.balance_paise,
        "refreshed_at": int(sim.clock.now()),
    }
    is_selected = query.get("account_type", kind) == kind and query.get("bank_code", "YESB") == "YESB"
    return _page(request, [item] if is_selected else [], dict)


ROUTES = (
    web.post("/v1/contacts", creates.contact),
    web.get("/v1/contacts", list_contacts),
    web.get("/v1/contacts/{id}", get_contact),
    web.patch("/v1/contacts/{id}", patch_contact),
    web.post("/v1/fund_accounts", creates.fund_account),
    web.get("/v1/fund_accounts", list_fund_accounts),
    web.get("/v1/fund_accounts/{id}", get_fund_account),
    web.patch("/v1/fund_accounts/{id}", patch_fund_account),
    web.post("/v1/payouts", creates.payout),
    web.get("/v1/payouts", list_payouts),
    web.get("/v1/payouts/{id}", get_payout),
    web.post("/v1/payouts/{id}/cancel", cancel_payout),
    web.patch("/v1/payouts/{id}/cancel", cancel_payout),
    web.get("/v1/transactions", list_transactions),
    web.get("/v1/transactions/{id}", get_transaction),
    web.get("/v1/banking_balances", balances),
)
