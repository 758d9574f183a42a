"""The HTTP application: authentication, simulated outages, and a log of every call."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from . import control, errors, faults, routes, tampering
from .config import Config
from .core import SIM, Sim

MAX_BODY_BYTES = 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


def build(config: Config) -> web.Application:
    """Build one simulator."""
    app = web.Application(middlewares=[_middleware], client_max_size=MAX_BODY_BYTES)
    app[SIM] = Sim(config)
    app[faults.STOPPING] = asyncio.Event()
    app.add_routes(routes.ROUTES)
    app.add_routes(control.ROUTES)
    app.add_routes(tampering.ROUTES)
    app.cleanup_ctx.append(_webhooks_running)
    return app


async def _webhooks_running(app: web.Application) -> AsyncIterator[None]:
    app[SIM].webhooks.start()
    yield
    await app[SIM].webhooks.stop()


@web.middleware
async def _middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Pass control calls through; log and answer all calls of the provider's API."""
    if request.path.startswith("/_sim/"):
        return await control.handle_errors(request, handler)
    sim = request.app[SIM]
    key = request.headers.get("X-Payout-Idempotency")
    entry = sim.calls.arrived(request.method, request.path, request.query_string, key)
    try:
        answer = await _answer(sim, request, handler)
    except asyncio.CancelledError:
        entry[-1] = "gone"
        raise
    entry[-1] = request.get(faults.OUTCOME, "answered")
    entry[-2] = answer.status if entry[-1] == "answered" else None
    return answer


async def _answer(sim: Sim, request: web.Request, handler: Handler) -> web.StreamResponse:
    """The provider's answer. An unexpected exception is a bug of the simulator and is logged as one."""
    try:
        outage = _outage(sim, request)
        if outage is not None:
            return outage
        if sim.is_rate_limited():
            raise errors.throttled()
        _authenticate(sim, request)
        # A create sleeps inside its key's critical section instead; see creates.py.
        if sim.settings.latency_ms and not (request.method == "POST" and request.path == "/v1/payouts"):
            await asyncio.sleep(sim.settings.latency_ms / 1000)
        return await handler(request)
    except errors.ApiError as error:
        return _refused(error)
    except web.HTTPException as error:
        return _refused(_from_aiohttp(error))
    except Exception:
        log.exception("simulator_bug %s %s", request.method, request.path)
        return _refused(errors.server_error())


def _refused(error: errors.ApiError) -> web.Response:
    return web.Response(
        body=error.body(), status=error.status, headers=error.headers, content_type="application/json"
    )


def _from_aiohttp(error: web.HTTPException) -> errors.ApiError:
    if error.status in (404, 405):
        return errors.url_not_found()
    if error.status == 413:
        return errors.ApiError("The request body is too large.", status=413)
    return errors.ApiError("The request is not valid.", status=error.status)


def _outage(sim: Sim, request: web.Request) -> web.Response | None:
    """The response of an API that is down, if the switch `down` is set."""
    if sim.settings.down == "500":
        raise errors.server_error()
    if sim.settings.down == "drop":
        return faults.drop(request)
    return faults.html_reply(503) if sim.settings.down == "503html" else None


def _authenticate(sim: Sim, request: web.Request) -> None:
    """HTTP Basic `key_id:key_secret` (`MD:api/x.md`)."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        credentials = base64.b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        credentials = b""
    expected: Any = f"{sim.config.key_id}:{sim.config.key_secret}".encode()
    if not hmac.compare_digest(credentials, expected):
        raise errors.unauthorized()
