"""Network and server faults instead of a good response. The provider does not document them; they happen
anyway.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from . import errors
from .scenarios import Fault
from .state import new_id

HTML_504 = (
    "<html><head><title>504 Gateway Time-out</title></head><body><h1>504 Gateway Time-out</h1></body></html>"
)
HTML_503 = HTML_504.replace("504 Gateway Time-out", "503 Service Temporarily Unavailable")
OUTCOME = web.RequestKey("outcome", str)
STOPPING = web.AppKey("stopping", asyncio.Event)


def json_reply(data: dict[str, Any], status: int = 200) -> web.Response:
    """A JSON response in ASCII, so that even a lone surrogate in a log entry can be written."""
    return web.Response(body=json.dumps(data).encode(), status=status, content_type="application/json")


def html_reply(status: int) -> web.Response:
    """The HTML response of a proxy in front of the provider."""
    return web.Response(text=HTML_503 if status == 503 else HTML_504, status=status, content_type="text/html")


def drop(request: web.Request) -> web.Response:
    """Close the connection. The returned response goes nowhere."""
    request[OUTCOME] = "dropped"
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def hold(request: web.Request) -> web.Response:
    """Send nothing until the client disconnects or the simulator stops."""
    request[OUTCOME] = "held"
    stopping = request.app[STOPPING]
    while request.transport is not None and not stopping.is_set():
        await asyncio.sleep(0.1)
    return web.Response()


def _refuse(fault: Fault) -> errors.ApiError:
    assert fault.refusal is not None
    return errors.ApiError(fault.refusal.description, field=fault.refusal.field, reason=fault.refusal.reason)


_ERRORS: dict[str, Callable[[Fault], errors.ApiError]] = {
    "refuse": _refuse,
    "json500": lambda _: errors.server_error(),
    "json504": lambda _: errors.gateway_timeout(),
    "throttle": lambda _: errors.throttled(retry_after_seconds=1),
    "unauthorized": lambda _: errors.unauthorized(),
    "in_flight": lambda _: errors.in_flight(),
}


async def apply_fault(
    request: web.Request, fault: Fault, entity: dict[str, Any] | None = None
) -> web.Response:
    """Respond as the fault says. `entity` is the accepted payout, if there is one."""
    if fault.kind in _ERRORS:
        raise _ERRORS[fault.kind](fault)
    if fault.kind == "drop":
        return drop(request)
    if fault.kind in ("hold", "hold_late"):
        return await hold(request)
    if fault.kind == "html504":
        return html_reply(504)
    if fault.kind == "garbage":
        return web.Response(body=b'{"id":"pout_', content_type="application/json")
    if fault.kind == "empty":
        return json_reply({})
    assert fault.kind == "wrong", fault.kind
    return json_reply({**(entity or {}), "id": new_id("pout"), "reference_id": new_id("other")})
