"""Creating things: contacts, fund accounts, and payouts with their idempotency key and faults.

`MD:api/x/payout-idempotency.md`, `MD:api/x/payout-idempotency/make-request.md`, `MD:errors/x.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, TypeVar

from aiohttp import web

from . import errors, faults, rules
from .core import SIM, Sim
from .entities import contact_entity, fund_account_entity, payout_entity
from .scenarios import Fault, Scenario, find, named_by_vpa
from .state import Contact, FundAccount, KeyRecord, Payout, digest

Known = TypeVar("Known")
LATE_SECONDS = 5.0  # `silent.late`: longer than a client waits, shorter than its patience with an unknown


async def body_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object."""
    return rules.json_object(request.content_type, await request.read())


def existing_contact(sim: Sim, contact_id: Any, field: str) -> Contact:
    """By id, or the provider's refusal."""
    return existing(sim.world.contacts, contact_id, "cont_", field)


def existing_fund_account(sim: Sim, account_id: Any, field: str) -> FundAccount:
    """By id, or the provider's refusal."""
    return existing(sim.world.fund_accounts, account_id, "fa_", field)


def existing(known: dict[str, Known], wanted: Any, prefix: str, field: str) -> Known:
    """The one with that id, or the provider's refusal."""
    if wanted is None or wanted == "":
        raise errors.required(field)
    # `MD:errors/x/fund-account.md` has the first text, the contacts page the second.
    if not isinstance(wanted, str) or not wanted.startswith(prefix) or len(wanted) != len(prefix) + 14:
        raise errors.ApiError(f"{str(wanted)[:60]} is not a valid id.", field=field)
    if wanted not in known:
        raise errors.ApiError("The id provided does not exist", field=field)
    return known[wanted]


async def contact(request: web.Request) -> web.Response:
    """POST /v1/contacts."""
    sim = request.app[SIM]
    fields = rules.contact(await body_of(request))
    made, is_new = sim.world.add_contact(fields, sim.clock.now())
    return faults.json_reply(contact_entity(made), 201 if is_new and sim.settings.created_201 else 200)


async def fund_account(request: web.Request) -> web.Response:
    """POST /v1/fund_accounts."""
    sim = request.app[SIM]
    body = await body_of(request)
    rules.known_fields(body, ("contact_id", "account_type", "vpa", "bank_account"))
    owner = existing_contact(sim, body.get("contact_id"), "contact_id")
    kind, detail = rules.destination(body, sim.settings.underscore_ok)
    fault = _fund_account_fault(sim, kind, detail)
    if fault is not None:
        return await faults.act(request, fault)
    made, is_new = sim.world.add_fund_account(owner, kind, detail, sim.clock.now())
    return faults.json_reply(fund_account_entity(made), 201 if is_new and sim.settings.created_201 else 200)


def _fund_account_fault(sim: Sim, kind: str, detail: Any) -> Fault | None:
    """Scenarios that strike when the destination is made; "first call" is per VPA here: there is no key."""
    if kind != "vpa":
        return None
    scenario = choose(sim, vpa=detail, reference_id=None, at_fund_account=True)
    if not scenario.at_fund_account or scenario.fault is None:
        return None
    sim.world.fund_account_calls[detail] += 1
    return scenario.fault if scenario.fault.applies(sim.world.fund_account_calls[detail]) else None


def choose(sim: Sim, vpa: str | None, reference_id: Any, at_fund_account: bool = False) -> Scenario:
    """The most particular rule wins: reference id, VPA, next N, the VPA's own name, default."""
    control = sim.world.rules
    if isinstance(reference_id, str) and reference_id in control.by_reference:
        return control.by_reference[reference_id]
    if vpa is not None and vpa in control.by_vpa:
        return control.by_vpa[vpa]
    upcoming = control.take_next(at_fund_account)
    if upcoming is not None:
        return upcoming
    named = named_by_vpa(vpa) if vpa is not None else None
    if named is None:
        return control.default
    scenario = find(named)
    if scenario is None:  # a misspelt scenario must not pass as a success
        raise errors.ApiError(
            f"The simulator has no scenario named {named!r}; see GET /_sim/scenarios.", field="vpa"
        )
    return scenario


async def payout(request: web.Request) -> web.Response:
    """POST /v1/payouts."""
    sim = request.app[SIM]
    key = rules.idempotency_key(request.headers.get("X-Payout-Idempotency"))
    raw = await request.read()
    body = rules.json_object(request.content_type, raw)
    record = sim.world.key_record(key, sim.clock.now())
    record.calls += 1
    if record.scenario is None:
        record.scenario = choose(sim, _vpa_of(sim, body), body.get("reference_id"))
    fault = record.scenario.fault
    if fault is not None and (record.scenario.at_fund_account or not fault.applies(record.calls)):
        fault = None
    if fault is not None and not fault.accepted:
        if fault.kind == "hold_late":
            sim.clock.after(LATE_SECONDS, lambda: _accept_late(sim, key, record, raw, body))
        return await faults.act(request, fault)
    accepted = await _accept_or_replay(sim, key, record, raw, body)
    if fault is not None:
        return await faults.act(request, fault, payout_entity(_made(record), sim.config.account_number))
    return web.Response(body=accepted, content_type="application/json")


def _accept_late(sim: Sim, key: str, record: KeyRecord, raw: bytes, body: dict[str, Any]) -> None:
    """The request that nobody waits for any more arrives at last, unless the key was used meanwhile."""
    if record.payout is None and not record.in_flight and record.digest in {None, digest(raw)}:
        record.digest = digest(raw)
        with contextlib.suppress(errors.ApiError):  # there is nobody left to tell
            _create(sim, key, record, body)


def _made(record: KeyRecord) -> Payout:
    assert record.payout is not None
    return record.payout


def _vpa_of(sim: Sim, body: dict[str, Any]) -> str | None:
    """Where the money is meant to go, as far as a body not yet checked says so."""
    account_id, inline = body.get("fund_account_id"), body.get("fund_account")
    if isinstance(account_id, str) and account_id in sim.world.fund_accounts:
        return sim.world.fund_accounts[account_id].vpa
    vpa = inline.get("vpa") if isinstance(inline, dict) else None
    address = vpa.get("address") if isinstance(vpa, dict) else None
    return address if isinstance(address, str) else None


async def _accept_or_replay(sim: Sim, key: str, record: KeyRecord, raw: bytes, body: dict[str, Any]) -> bytes:
    """One key makes one payout: the first good call creates it, later ones return it."""
    fingerprint = digest(raw)
    if record.digest is not None and record.digest != fingerprint:
        raise errors.other_body(409 if sim.settings.mismatch_409 else 400)
    if record.in_flight:
        raise errors.in_flight()
    if record.payout is not None:
        return record.saved_reply if sim.settings.replay_saved else _written(sim, record.payout)
    record.digest, record.in_flight = fingerprint, True
    try:
        if sim.settings.latency_ms:
            await asyncio.sleep(sim.settings.latency_ms / 1000)
        return await _first(sim, key, record, body)
    except errors.ApiError:
        if not sim.settings.refusal_consumes_key:
            record.digest = record.scenario = None
        raise
    finally:
        record.in_flight = False


async def _first(sim: Sim, key: str, record: KeyRecord, body: dict[str, Any]) -> bytes:
    """Create, and for `hook.early` let every webhook go before the reply."""
    made = _create(sim, key, record, body)
    if made.scenario.hooks.early:
        sim.payouts.finish_now(made)
        await asyncio.gather(*(d.tried.wait() for d in made.deliveries if d.state == "waiting"))
    return record.saved_reply


def _create(sim: Sim, key: str, record: KeyRecord, body: dict[str, Any]) -> Payout:
    """Check every rule, accept, and write the reply as things stood at that moment."""
    assert record.scenario is not None
    fields = rules.payout(body, sim.config.account_number, sim.settings.upi_limit_exclusive)
    account = _destination(sim, body, fields["mode"])
    made = sim.payouts.accept(fields, account, record.scenario, key, composite="fund_account" in body)
    record.payout = made
    record.saved_reply = _written(sim, made)
    return made


def _written(sim: Sim, payout: Payout) -> bytes:
    return json.dumps(payout_entity(payout, sim.config.account_number)).encode()


def _destination(sim: Sim, body: dict[str, Any], mode: str) -> FundAccount:
    """The fund account named or described by the body, if money may go there by this mode."""
    if (body.get("fund_account_id") is None) == (body.get("fund_account") is None):
        raise errors.required("fund_account_id")
    if body.get("fund_account") is not None:
        account = _composite(sim, rules.nested(body, "fund_account"))
    else:
        account = existing_fund_account(sim, body["fund_account_id"], "fund_account_id")
    if not account.active or not account.contact.active:
        which = "contact" if account.active else "fund account"
        raise errors.ApiError(f"Payouts cannot be created on an inactive {which}", field="fund_account_id")
    if mode not in rules.MODES_FOR[account.kind]:
        raise errors.ApiError("Payout mode is not valid for the fund account type.", field="mode")
    return account


def _composite(sim: Sim, inline: dict[str, Any]) -> FundAccount:
    """Contact and fund account inside the payout; known ones are found again.

    `MD:api/x/payout-composite.md`.
    """
    rules.known_fields(inline, ("account_type", "vpa", "bank_account", "contact"), "fund_account.")
    kind, detail = rules.destination(inline, sim.settings.underscore_ok, "fund_account.")
    person = rules.nested(inline, "contact", "fund_account.")
    fields = None if "id" in person else rules.contact(person, "fund_account.contact.")
    fault = _fund_account_fault(sim, kind, detail)
    if fault is not None and fault.refusal is not None:
        raise errors.ApiError(fault.refusal.description, field=fault.refusal.field)
    if fault is not None:
        raise errors.server_error()
    if fields is None:  # an existing contact by id: the community does this (`ERP:apis/payout.py`)
        owner = existing_contact(sim, person["id"], "fund_account.contact.id")
    else:
        owner, _ = sim.world.add_contact(fields, sim.clock.now())
    return sim.world.add_fund_account(owner, kind, detail, sim.clock.now())[0]
