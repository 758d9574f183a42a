"""`/_sim/`: control calls that make the provider misbehave on purpose. README.md has every call."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from . import settings as switches
from .core import SIM, Sim
from .deliveries import Delivery
from .errors import ApiError
from .faults import json_reply
from .reasons import REASONS, STATUSES, USUAL_REASON
from .scenarios import SCENARIOS, Scenario, find
from .state import Payout

MAX_PAISE = 10**15
MAX_ADVANCE_SECONDS = 400 * 24 * 3600
DEFAULT_LIMIT = 200_000


class BadControl(Exception):
    """A bad control call: answered with 400 and this sentence."""


async def handle_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer errors of control calls with one plain sentence."""
    try:
        return await handler(request)
    except BadControl as error:
        return json_reply({"error": str(error)}, 400)
    except ApiError as error:
        return json_reply({"error": str(error)}, 400)
    except web.HTTPException as error:
        return json_reply({"error": f"{request.method} {request.path}: {error.reason}."}, error.status)


async def parse_body(request: web.Request, *allowed: str) -> dict[str, Any]:
    """The JSON object of the request. Raises BadControl for fields that are not allowed."""
    raw = await request.read()
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise BadControl("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise BadControl("The body must be a JSON object.")
    unknown = set(body) - set(allowed)
    if allowed and unknown:
        raise BadControl(f"Unknown field {sorted(unknown)[0]!r}; known: {', '.join(allowed)}.")
    return body


def _number(body: dict[str, Any], name: str, low: float, high: float, *, whole: bool = False) -> float:
    value = body.get(name)
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    # Infinity and NaN fail the comparison, so they are rejected like other numbers out of bounds.
    if value is None or not number or not low <= value <= high:
        raise BadControl(f"{name} must be a {'whole ' if whole else ''}number from {low} to {high}.")
    return float(value) if not whole else value


def _cursor(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 15:
        raise BadControl(f"{name} must be a whole number.")
    return int(text)


# --- reading -------------------------------------------------------------------


async def health(request: web.Request) -> web.Response:
    """GET /_sim/health."""
    sim = request.app[SIM]
    return json_reply(
        {
            "status": "ok",
            "now": sim.clock.now(),
            "speed": sim.clock.speed,
            "balance_paise": sim.world.balance_paise,
            "payouts": len(sim.world.in_order),
            "calls": sim.calls.count,
            "deliveries": len(sim.webhooks.deliveries),
            "webhook_url": sim.webhooks.url,
            "settings": asdict(sim.settings),
        }
    )


async def scenarios(request: web.Request) -> web.Response:
    """GET /_sim/scenarios."""
    return json_reply({"items": [{"name": s.name, "summary": s.summary} for s in SCENARIOS.values()]})


async def payouts(request: web.Request) -> web.Response:
    """GET /_sim/payouts, oldest first."""
    sim = request.app[SIM]
    query = request.query
    matches = (
        sim.world.by_reference.get(query["reference_id"], [])
        if "reference_id" in query
        else sim.world.in_order
    )
    if "idempotency_key" in query:
        matches = [payout for payout in matches if payout.key == query["idempotency_key"]]
    if "status" in query:
        matches = [payout for payout in matches if payout.status == query["status"]]
    return json_reply({"count": len(matches), "items": [payout_row(sim, payout) for payout in matches]})


def payout_row(sim: Sim, payout: Payout) -> dict[str, Any]:
    """A payout as control calls return it."""
    record = sim.world.keys.get(payout.key)
    return {
        "id": payout.id,
        "reference_id": payout.fields["reference_id"],
        "idempotency_key": payout.key,
        "amount": payout.fields["amount"],
        "status": payout.status,
        "reason": payout.reason,
        "utr": payout.utr,
        "vpa": payout.fund_account.vpa,
        "scenario": payout.scenario.name,
        "created_at": payout.created_at,
        # After 7 days a key is forgotten and counts again, for its next payout.
        "create_calls": record.calls if record is not None and record.payout is payout else 0,
        "held_paise": payout.held_paise,
        "fees": payout.fees,
        "tax": payout.tax,
        "history": [{"at": at, "status": status, "reason": reason} for at, status, reason in payout.history],
    }


async def calls(request: web.Request) -> web.Response:
    """GET /_sim/calls?since=N&limit=M."""
    log = request.app[SIM].calls
    items = log.since(_cursor(request, "since", 0), _cursor(request, "limit", DEFAULT_LIMIT))
    return json_reply({"next": items[-1]["n"] if items else log.count, "items": items})


async def webhooks(request: web.Request) -> web.Response:
    """GET /_sim/webhooks?payout_id=&event=."""
    sim = request.app[SIM]
    query = request.query
    matches = sim.webhooks.deliveries
    if "payout_id" in query:
        payout = sim.world.payouts.get(query["payout_id"])
        matches = payout.deliveries if payout is not None else []
    if "event" in query:
        matches = [delivery for delivery in matches if delivery.event.name == query["event"]]
    return json_reply({"count": len(matches), "items": [_delivery_row(delivery) for delivery in matches]})


def _delivery_row(delivery: Delivery) -> dict[str, Any]:
    event = delivery.event
    return {
        "event_id": event.id,
        "event": event.name,
        "payout_id": event.payout_id,
        "created_at": event.created_at,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "last_status": delivery.last_status,
    }


# --- changing ------------------------------------------------------------------


async def set_scenario(request: web.Request) -> web.Response:
    """POST /_sim/scenario: set it for one reference id, one VPA, the next N creates, or all others."""
    rules = request.app[SIM].world.rules
    body = await parse_body(request, "scenario", "reference_id", "vpa", "next", "default")
    scenario = _scenario(body.get("scenario"))
    targets = [
        name for name in ("reference_id", "vpa", "next", "default") if body.get(name) not in (None, False)
    ]
    if len(targets) != 1:
        raise BadControl("Give exactly one of reference_id, vpa, next, default.")
    target = targets[0]
    if target == "next":
        rules.next_creates.append((scenario, int(_number(body, "next", 1, 10**9, whole=True))))
    elif target == "default":
        if body["default"] is not True:
            raise BadControl("default must be true.")
        rules.default = scenario
    else:
        if not isinstance(body[target], str) or not body[target]:
            raise BadControl(f"{target} must be a non-empty string.")
        (rules.by_reference if target == "reference_id" else rules.by_vpa)[body[target]] = scenario
    return json_reply({"scenario": scenario.name, "summary": scenario.summary, "for": target})


def _scenario(name: Any) -> Scenario:
    scenario = find(name) if isinstance(name, str) else None
    if scenario is None:
        raise BadControl(f"There is no scenario {name!r}; see GET /_sim/scenarios.")
    return scenario


async def set_balance(request: web.Request) -> web.Response:
    """POST /_sim/balance."""
    sim = request.app[SIM]
    body = await parse_body(request, "paise")
    sim.payouts.set_balance(int(_number(body, "paise", 0, MAX_PAISE, whole=True)))
    return json_reply({"balance_paise": sim.world.balance_paise})


async def set_speed(request: web.Request) -> web.Response:
    """POST /_sim/speed."""
    sim = request.app[SIM]
    sim.clock.set_speed(_number(await parse_body(request, "speed"), "speed", 0.001, 100_000))
    return json_reply({"speed": sim.clock.speed})


async def set_settings(request: web.Request) -> web.Response:
    """POST /_sim/settings: change any of the switches; returns all of them."""
    sim = request.app[SIM]
    fault = switches.change(sim.settings, await parse_body(request))
    if fault is not None:
        raise BadControl(fault)
    return json_reply(asdict(sim.settings))


async def advance(request: web.Request) -> web.Response:
    """POST /_sim/advance."""
    sim = request.app[SIM]
    await sim.clock.advance(_number(await parse_body(request, "seconds"), "seconds", 0, MAX_ADVANCE_SECONDS))
    return json_reply({"now": sim.clock.now()})


def known_payout(sim: Sim, payout_id: Any) -> Payout:
    """The payout with this id. Raises BadControl if there is none."""
    payout = sim.world.payouts.get(payout_id) if isinstance(payout_id, str) else None
    if payout is None:
        raise BadControl(f"There is no payout {payout_id!r}.")
    return payout


async def set_status(request: web.Request) -> web.Response:
    """POST /_sim/payouts/{id}/status: like Change Status on the provider's test dashboard."""
    sim = request.app[SIM]
    payout = known_payout(sim, request.match_info["id"])
    body = await parse_body(request, "status", "reason")
    status = body.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise BadControl(f"status must be one of {', '.join(sorted(STATUSES))}.")
    reason = body.get("reason", USUAL_REASON[status])
    if reason is not None and (not isinstance(reason, str) or reason not in REASONS):
        raise BadControl(f"reason must be null or one of {', '.join(sorted(REASONS))}.")
    sim.payouts.set_status(payout, status, reason)
    return json_reply(payout_row(sim, payout))


async def replay(request: web.Request) -> web.Response:
    """POST /_sim/webhooks/replay: same event ids, current secret."""
    sim = request.app[SIM]
    payout = known_payout(sim, (await parse_body(request, "payout_id")).get("payout_id"))
    return json_reply({"replayed": sim.webhooks.replay(payout)})


async def rotate_secret(request: web.Request) -> web.Response:
    """POST /_sim/webhooks/secret: the current secret becomes the previous one."""
    hooks = request.app[SIM].webhooks
    secret = (await parse_body(request, "secret")).get("secret")
    if not isinstance(secret, str) or not secret:
        raise BadControl("secret must be a non-empty string.")
    hooks.previous_secret = hooks.secret
    hooks.secret = secret
    return json_reply({"rotated": True})


async def reset(request: web.Request) -> web.Response:
    """POST /_sim/reset."""
    await request.app[SIM].reset()
    return json_reply({"reset": True})


ROUTES = (
    web.get("/_sim/health", health),
    web.get("/_sim/scenarios", scenarios),
    web.get("/_sim/payouts", payouts),
    web.get("/_sim/calls", calls),
    web.get("/_sim/webhooks", webhooks),
    web.post("/_sim/scenario", set_scenario),
    web.post("/_sim/balance", set_balance),
    web.post("/_sim/speed", set_speed),
    web.post("/_sim/settings", set_settings),
    web.post("/_sim/advance", advance),
    web.post("/_sim/payouts/{id}/status", set_status),
    web.post("/_sim/webhooks/replay", replay),
    web.post("/_sim/webhooks/secret", rotate_secret),
    web.post("/_sim/reset", reset),
)
