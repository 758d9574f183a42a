"""`/_sim/payouts/{id}/alter`, `/_sim/transactions…`: make the provider's own data wrong.

Only the lists change: no money moves and no webhook is sent. README.md has every call.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .control import BadControl, known_payout, parse_body, payout_row
from .core import SIM, Sim
from .faults import json_reply
from .state import Payout, new_id

ALTERABLE_FIELDS = ("amount", "fees", "tax", "utr", "reference_id")
SOURCES = ("payout", "reversal", "bank_transfer", "other")


async def alter(request: web.Request) -> web.Response:
    """POST /_sim/payouts/{id}/alter: change the payout's fields in all lists."""
    sim = request.app[SIM]
    payout = known_payout(sim, request.match_info["id"])
    changes = await parse_body(request, *ALTERABLE_FIELDS)
    for name in ("amount", "fees", "tax"):
        if name in changes:
            _paise(changes, name)
    for name in ("utr", "reference_id"):
        if not isinstance(changes.get(name), str | None):
            raise BadControl(f"{name} must be a string or null.")
    _change_reference(sim, payout, changes)
    for name in ("fees", "tax", "utr"):
        if name in changes:
            setattr(payout, name, changes[name])
    payout.fields = {**payout.fields, "amount": changes.get("amount", payout.fields["amount"])}
    return json_reply(payout_row(sim, payout))


async def forget(request: web.Request) -> web.Response:
    """POST /_sim/payouts/{id}/forget: remove it from lists and lookups. Its transactions stay."""
    sim = request.app[SIM]
    payout = known_payout(sim, request.match_info["id"])
    if payout.timer is not None:
        payout.timer.cancel()
    sim.world.in_order.remove(payout)
    del sim.world.payouts[payout.id]
    sim.world.by_fund_account[payout.fund_account.id].remove(payout)
    if payout.fields["reference_id"]:
        sim.world.by_reference[payout.fields["reference_id"]].remove(payout)
    return json_reply({"forgotten": payout.id})


async def add_transaction(request: web.Request) -> web.Response:
    """POST /_sim/transactions: add a statement line without a cause."""
    sim = request.app[SIM]
    body = await parse_body(request, "debit", "credit", "source", "payout_id")
    source = body.get("source")
    if source not in SOURCES:
        raise BadControl(f"source must be one of {', '.join(SOURCES)}.")
    debit, credit = (_paise(body, name) if name in body else 0 for name in ("debit", "credit"))
    if (debit > 0) == (credit > 0):
        raise BadControl("Either debit or credit must be more than 0.")
    payout_id = body.get("payout_id")
    prefix = {"bank_transfer": "bt", "reversal": "rvrsl"}.get(source, source)
    source_entity: dict[str, Any] = {"id": new_id(prefix)}
    if source == "payout" and payout_id:
        source_entity["id"] = payout_id
    if source == "reversal":
        source_entity["payout_id"] = payout_id
    line = {
        "id": new_id("txn"),
        "entity": "transaction",
        "account_number": sim.config.account_number,
        "amount": debit or credit,
        "currency": "INR",
        "credit": credit,
        "debit": debit,
        "balance": sim.world.balance_paise,
        "source": {**source_entity, "entity": source, "amount": debit or credit},
        "created_at": int(sim.clock.now()),
    }
    sim.world.transactions.append(line)
    sim.world.transaction_by_id[line["id"]] = line
    return json_reply(line)


async def alter_transaction(request: web.Request) -> web.Response:
    """POST /_sim/transactions/{id}: change its amounts, or remove it."""
    world = request.app[SIM].world
    line = world.transaction_by_id.get(request.match_info["id"])
    if line is None:
        raise BadControl(f"There is no transaction {request.match_info['id']!r}.")
    body = await parse_body(request, "debit", "credit", "gone")
    if body.get("gone") is True:
        world.transactions.remove(line)
        del world.transaction_by_id[line["id"]]
        return json_reply({"gone": line["id"]})
    for name in ("debit", "credit"):
        if name in body:
            line[name] = _paise(body, name)
    line["amount"] = line["debit"] or line["credit"]
    return json_reply(line)


def _change_reference(sim: Sim, payout: Payout, changes: dict[str, Any]) -> None:
    if "reference_id" not in changes:
        return
    before = payout.fields["reference_id"]
    after = changes["reference_id"]
    if before:
        sim.world.by_reference[before].remove(payout)
    if after:
        sim.world.by_reference[after].append(payout)
    payout.fields = {**payout.fields, "reference_id": after}


def _paise(body: dict[str, Any], name: str) -> int:
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**12:
        raise BadControl(f"{name} must be a whole number of paise.")
    return value


ROUTES = (
    web.post("/_sim/payouts/{id}/alter", alter),
    web.post("/_sim/payouts/{id}/forget", forget),
    web.post("/_sim/transactions", add_transaction),
    web.post("/_sim/transactions/{id}", alter_transaction),
)
