"""Create contacts, fund accounts and payouts, with idempotency keys and faults.

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

Entity = TypeVar("Entity")
LATE_SECONDS = 5.0  # `silent.late`: longer than a client waits, shorter than it treats the payout as unknown


async def parse_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of the request."""
    return rules.json_object(request.content_type, await request.read())


def find_contact(sim: Sim, contact_id: Any, field: str) -> Contact:
    """The contact with this id, or the provider's error."""
    return find_by_id(sim.world.contacts, contact_id, "cont_", field)


def find_fund_account(sim: Sim, account_id: Any, field: str) -> FundAccount:
    """The fund account with this id, or the provider's error."""
    return find_by_id(sim.world.fund_accounts, account_id, "fa_", field)


def find_by_id(entities: dict[str, Entity], entity_id: Any, prefix: str, field: str) -> Entity:
    """The entity with this id, or the provider's error."""
    if entity_id is None or entity_id == "":
        raise errors.required(field)
    # `MD:errors/x/fund-account.md` has the first text, the contacts page the second.
    if (
        not isinstance(entity_id, str)
        or not entity_id.startswith(prefix)
        or len(entity_id) != len(prefix) + 14
    ):
        raise errors.ApiError(f"{str(entity_id)[:60]} is not a valid id.", field=field)
    if entity_id not in entities:
        raise errors.ApiError("The id provided does not exist", field=field)
    return entities[entity_id]


async def contact(request: web.Request) -> web.Response:
    """POST /v1/contacts."""
    sim = request.app[SIM]
    fields = rules.contact(await parse_body(request))
    new_contact, is_new = sim.world.add_contact(fields, sim.clock.now())
    status = 201 if is_new and sim.settings.created_201 else 200
    return faults.json_reply(contact_entity(new_contact), status)


async def fund_account(request: web.Request) -> web.Response:
    """POST /v1/fund_accounts."""
    sim = request.app[SIM]
    body = await parse_body(request)
    rules.known_fields(body, ("contact_id", "account_type", "vpa", "bank_account"))
    owner = find_contact(sim, body.get("contact_id"), "contact_id")
    kind, detail = rules.destination(body, sim.settings.underscore_ok)
    fault = _fund_account_fault(sim, kind, detail)
    if fault is not None:
        return await faults.apply_fault(request, fault)
    account, is_new = sim.world.add_fund_account(owner, kind, detail, sim.clock.now())
    status = 201 if is_new and sim.settings.created_201 else 200
    return faults.json_reply(fund_account_entity(account), status)


def _fund_account_fault(sim: Sim, kind: str, detail: Any) -> Fault | None:
    """The fault of a scenario that applies to fund accounts. "First call" is per VPA, because there is no
    key.
    """
    if kind != "vpa":
        return None
    scenario = choose_scenario(sim, vpa=detail, reference_id=None, at_fund_account=True)
    if not scenario.at_fund_account or scenario.fault is None:
        return None
    sim.world.fund_account_calls[detail] += 1
    return scenario.fault if scenario.fault.applies(sim.world.fund_account_calls[detail]) else None


def choose_scenario(sim: Sim, vpa: str | None, reference_id: Any, at_fund_account: bool = False) -> Scenario:
    """The most specific rule wins: reference id, VPA, next N, the VPA's own name, default."""
    control = sim.world.rules
    if isinstance(reference_id, str) and reference_id in control.by_reference:
        return control.by_reference[reference_id]
    if vpa is not None and vpa in control.by_vpa:
        return control.by_vpa[vpa]
    next_scenario = control.take_next(at_fund_account)
    if next_scenario is not None:
        return next_scenario
    name = named_by_vpa(vpa) if vpa is not None else None
    if name is None:
        return control.default
    scenario = find(name)
    if scenario is None:  # a misspelt scenario must not look like a success
        raise errors.ApiError(
            f"The simulator has no scenario named {name!r}; see GET /_sim/scenarios.", field="vpa"
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
        record.scenario = choose_scenario(sim, _vpa_of(sim, body), body.get("reference_id"))
    fault = record.scenario.fault
    if fault is not None and (record.scenario.at_fund_account or not fault.applies(record.calls)):
        fault = None
    if fault is not None and not fault.accepted:
        if fault.kind == "hold_late":
            sim.clock.after(LATE_SECONDS, lambda: _accept_late(sim, key, record, raw, body))
        return await faults.apply_fault(request, fault)
    accepted = await _accept_or_replay(sim, key, record, raw, body)
    if fault is not None:
        return await faults.apply_fault(
            request, fault, payout_entity(_created_payout(record), sim.config.account_number)
        )
    return web.Response(body=accepted, content_type="application/json")


def _accept_late(sim: Sim, key: str, record: KeyRecord, raw: bytes, body: dict[str, Any]) -> None:
    """Accept the request after its client gave up, unless the key was used in the meantime."""
    if record.payout is None and not record.in_flight and record.digest in {None, digest(raw)}:
        record.digest = digest(raw)
        with contextlib.suppress(errors.ApiError):  # no client is waiting for the error
            _create(sim, key, record, body)


def _created_payout(record: KeyRecord) -> Payout:
    assert record.payout is not None
    return record.payout


def _vpa_of(sim: Sim, body: dict[str, Any]) -> str | None:
    """The payee's VPA, if the unvalidated body names one."""
    account_id = body.get("fund_account_id")
    inline = body.get("fund_account")
    if isinstance(account_id, str) and account_id in sim.world.fund_accounts:
        return sim.world.fund_accounts[account_id].vpa
    vpa = inline.get("vpa") if isinstance(inline, dict) else None
    address = vpa.get("address") if isinstance(vpa, dict) else None
    return address if isinstance(address, str) else None


async def _accept_or_replay(sim: Sim, key: str, record: KeyRecord, raw: bytes, body: dict[str, Any]) -> bytes:
    """One key creates one payout: the first valid call creates it, later ones return it."""
    fingerprint = digest(raw)
    if record.digest is not None and record.digest != fingerprint:
        raise errors.other_body(409 if sim.settings.mismatch_409 else 400)
    if record.in_flight:
        raise errors.in_flight()
    if record.payout is not None:
        return record.saved_reply if sim.settings.replay_saved else _payout_json(sim, record.payout)
    record.digest = fingerprint
    record.in_flight = True
    try:
        if sim.settings.latency_ms:
            await asyncio.sleep(sim.settings.latency_ms / 1000)
        return await _create_first(sim, key, record, body)
    except errors.ApiError:
        if not sim.settings.refusal_consumes_key:
            record.digest = record.scenario = None
        raise
    finally:
        record.in_flight = False


async def _create_first(sim: Sim, key: str, record: KeyRecord, body: dict[str, Any]) -> bytes:
    """Create the payout. For `hook.early`, deliver every webhook before the reply."""
    created = _create(sim, key, record, body)
    if created.scenario.hooks.early:
        sim.payouts.finish_now(created)
        await asyncio.gather(*(d.tried.wait() for d in created.deliveries if d.state == "waiting"))
    return record.saved_reply


def _create(sim: Sim, key: str, record: KeyRecord, body: dict[str, Any]) -> Payout:
    """Check every rule, accept the payout, and save the reply."""
    assert record.scenario is not None
    fields = rules.payout(body, sim.config.account_number, sim.settings.upi_limit_exclusive)
    account = _destination(sim, body, fields["mode"])
    created = sim.payouts.accept(fields, account, record.scenario, key, composite="fund_account" in body)
    record.payout = created
    record.saved_reply = _payout_json(sim, created)
    return created


def _payout_json(sim: Sim, payout: Payout) -> bytes:
    return json.dumps(payout_entity(payout, sim.config.account_number)).encode()


def _destination(sim: Sim, body: dict[str, Any], mode: str) -> FundAccount:
    """The fund account that the body names or describes, if the mode is allowed for it."""
    if (body.get("fund_account_id") is None) == (body.get("fund_account") is None):
        raise errors.required("fund_account_id")
    if body.get("fund_account") is not None:
        account = _composite(sim, rules.nested(body, "fund_account"))
    else:
        account = find_fund_account(sim, body["fund_account_id"], "fund_account_id")
    if not account.active or not account.contact.active:
        which = "contact" if account.active else "fund account"
        raise errors.ApiError(f"Payouts cannot be created on an inactive {which}", field="fund_account_id")
    if mode not in rules.MODES_FOR[account.kind]:
        raise errors.ApiError("Payout mode is not valid for the fund account type.", field="mode")
    return account


def _composite(sim: Sim, inline: dict[str, Any]) -> FundAccount:
    """The contact and fund account inside a payout, created or found again.

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
    if fields is None:  # an existing contact by id, as the community uses it (`ERP:apis/payout.py`)
        owner = find_contact(sim, person["id"], "fund_account.contact.id")
    else:
        owner, _ = sim.world.add_contact(fields, sim.clock.now())
    return sim.world.add_fund_account(owner, kind, detail, sim.clock.now())[0]
