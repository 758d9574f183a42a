"""The provider's JSON, including its oddities.

Oddities depend on the seed and the payout's number, so runs can be repeated: `utr` and `debit_account_number`
as the string "null", `notes` as `[]`, `status_details` null or an object, unknown keys
(`MD:webhooks/payouts.md`, `MD:webhooks/transactions.md`, `MD:api/x/payouts/entity.md`).
"""

from __future__ import annotations

import zlib
from typing import Any

from .reasons import REASONS
from .state import Contact, FundAccount, Payout

MERCHANT_ID = "Pq0000000000Zz"
ACCOUNT_ID = f"acc_{MERCHANT_ID}"
ROUTINE_REASONS = frozenset({"payout_bank_processing", "payout_processed"})
NO_ERROR: dict[str, Any] = {
    "source": None,
    "reason": None,
    "description": None,
    "code": "NA",
    "step": "NA",
    "metadata": {},
}


def oddity_number(seed: int, number: int) -> int:
    """A number that is equal for the same payout in every run with this seed."""
    return zlib.crc32(f"{seed}:{number}".encode())


def contact_entity(contact: Contact) -> dict[str, Any]:
    """`MD:api/x/contacts/create.md`."""
    fields = contact.fields
    return {
        "id": contact.id,
        "entity": "contact",
        "name": fields["name"],
        "contact": fields["contact"],
        "email": fields["email"],
        "type": fields["type"],
        "reference_id": fields["reference_id"],
        "batch_id": None,
        "active": contact.active,
        "notes": fields["notes"] or [],
        "created_at": contact.created_at,
    }


def fund_account_entity(account: FundAccount, with_contact: bool = False) -> dict[str, Any]:
    """`MD:api/x/fund-accounts/create/vpa.md`; composite payouts embed the contact."""
    entity: dict[str, Any] = {"id": account.id, "entity": "fund_account", "contact_id": account.contact.id}
    if with_contact:
        entity["contact"] = contact_entity(account.contact)
    entity["account_type"] = account.kind
    if account.kind == "vpa":
        username, _, handle = account.detail.partition("@")
        entity["vpa"] = {"username": username, "handle": handle, "address": account.detail}
    else:
        entity["bank_account"] = {"bank_name": "Simulated Bank", "notes": [], **account.detail}
    return entity | {"batch_id": None, "active": account.active, "created_at": account.created_at}


def status_details(payout: Payout) -> dict[str, Any] | None:
    """Sometimes null for routine reasons, never for a reason why a payout failed."""
    if payout.reason is None or (payout.reason in ROUTINE_REASONS and payout.odd % 4 == 0):
        return None
    reason = REASONS[payout.reason]
    return {"reason": payout.reason, "description": reason.description, "source": reason.source}


def payout_entity(payout: Payout, account_number: str) -> dict[str, Any]:
    """`MD:api/x/payouts/entity.md`."""
    fields = payout.fields
    odd = payout.odd
    entity: dict[str, Any] = {"id": payout.id, "entity": "payout", "fund_account_id": payout.fund_account.id}
    if payout.composite:
        entity["fund_account"] = fund_account_entity(payout.fund_account, with_contact=True)
    entity |= {
        "amount": fields["amount"],
        "currency": fields["currency"],
        "notes": fields["notes"] or [],
        "fees": payout.fees,
        "tax": payout.tax,
        "status": payout.status,
        "purpose": fields["purpose"],
        "utr": payout.utr or ("null" if odd % 5 == 0 else None),
        "mode": fields["mode"],
        "reference_id": fields["reference_id"],
        "narration": fields["narration"] or "Simulated Business",
        "batch_id": None,
        "failure_reason": None,
        "status_details": status_details(payout),
        "created_at": int(payout.created_at),
        "fee_type": "" if odd % 3 else None,
    }
    if odd % 7 < 5:
        entity["debit_account_number"] = account_number if odd % 7 else "null"
    if odd % 11 == 0:
        entity |= {"merchant_id": MERCHANT_ID, "status_details_id": "sd_0000000000", "queueing_details": None}
    return entity


def webhook_payout_entity(payout: Payout, account_number: str) -> dict[str, Any]:
    """A payout with its fund account embedded and sometimes with the provider's own notes."""
    entity = payout_entity(payout, account_number)
    entity["fund_account"] = fund_account_entity(payout.fund_account)
    entity["error"] = NO_ERROR
    if payout.odd % 4 == 1:
        entity["notes"] = {**payout.fields["notes"], "payee_bank_name": "Simulated Bank"}
    return entity


def transaction_entity(
    txn_id: str,
    account_number: str,
    payout: Payout,
    *,
    credit: int,
    debit: int,
    balance: int,
    now: float,
    reversal_id: str | None = None,
) -> dict[str, Any]:
    """`MD:webhooks/transactions.md`; the `reversal` source is the community's (`ERP:utils/webhook.py`)."""
    source: dict[str, Any]
    if reversal_id:
        source = {
            "id": reversal_id,
            "entity": "reversal",
            "payout_id": payout.id,
            "amount": credit,
            "notes": [],
            "utr": payout.utr,
            "created_at": int(now),
        }
    else:
        source = {
            "id": payout.id,
            "entity": "payout",
            "fund_account_id": payout.fund_account.id,
            "amount": payout.fields["amount"],
            "notes": payout.fields["notes"] or [],
            "fees": payout.fees,
            "tax": payout.tax,
            "status": payout.status,
            "utr": payout.utr,
            "mode": payout.fields["mode"],
            "created_at": int(payout.created_at),
            "fee_type": "",
        }
    return {
        "id": txn_id,
        "entity": "transaction",
        "account_number": account_number,
        "amount": credit or debit,
        "currency": "INR",
        "credit": credit,
        "debit": debit,
        "balance": balance,
        "source": source,
        "created_at": int(now),
    }


def collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A list; no total and no cursor (`MD:api/understand.md`)."""
    return {"entity": "collection", "count": len(items), "items": items}


def make_contradictory(page: dict[str, Any], how: str) -> dict[str, Any]:
    """The same list without its rows, contradicting itself in one of the ways of the switch `lists`."""
    empty = {**page, "items": []}
    match how:
        case "count":
            return {**empty, "count": 1}
        case "entity":
            return {"items": []}
        case "error":
            return {**empty, "count": 0, "error": {"code": "SERVER_ERROR", "description": "Partial result"}}
        case "has_more":
            return {**empty, "count": 0, "has_more": True}
        case _:
            return page


def event_envelope(name: str, kind: str, entity: dict[str, Any], now: float) -> dict[str, Any]:
    """`MD:webhooks/payouts.md`."""
    return {
        "entity": "event",
        "account_id": ACCOUNT_ID,
        "event": name,
        "contains": [kind],
        "payload": {kind: {"entity": entity}},
        "created_at": int(now),
    }
