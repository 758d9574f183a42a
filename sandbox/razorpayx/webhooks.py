"""Webhooks: built for each event, signed, and delivered at least once, in any order.

`MD:webhooks/best-practices.md`, `MD:webhooks/validate-test.md`, `MD:webhooks/setup-edit-payouts.md`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
from collections import deque
from typing import Any

import aiohttp

from .clock import Clock
from .deliveries import Delivery, Event
from .entities import event_envelope
from .scenarios import Hooks
from .settings import Settings
from .state import Payout, bare_id

SENDERS = 32  # concurrent deliveries
HOOK_DELAY_SECONDS = 0.1  # after the cause, so usually after the reply
FIRST_RETRY_SECONDS = 1.0  # the provider's schedule is not published; here exponential, at most hourly
MAX_RETRY_SECONDS = 3600.0
GIVE_UP_SECONDS = 24 * 3600  # then the webhook is disabled (`MD:webhooks/best-practices.md`)
MAX_REPLAYABLE = 20_000  # delivered events that can still be replayed


class Webhooks:
    """The event log and its senders."""

    def __init__(self, url: str, secret: str, previous_secret: str, clock: Clock, settings: Settings) -> None:
        self.url = url
        self.secret = secret
        self.previous_secret = previous_secret
        self.clock = clock
        self.settings = settings
        self.deliveries: list[Delivery] = []
        self._delivered: deque[Delivery] = deque()
        self._ready: asyncio.Queue[Delivery] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the senders if there is a URL."""
        if self.url:
            self._tasks = [asyncio.create_task(self._work()) for _ in range(SENDERS)]

    async def stop(self) -> None:
        """Stop at once; undelivered events are lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def restart(self) -> None:
        """Delete every event and start again."""
        await self.stop()
        for delivery in self.deliveries:
            delivery.tried.set()  # a create reply may be waiting for it
        self.deliveries.clear()
        self._delivered.clear()
        self._ready = asyncio.Queue()
        self.start()

    def emit(self, payout: Payout, name: str, kind: str, entity: dict[str, Any]) -> None:
        """Create an event for the payout and plan its deliveries."""
        if not self.url:
            return
        hooks = payout.scenario.hooks
        now = self.clock.now()
        body = json.dumps(event_envelope(name, kind, entity, now)).encode()
        event = Event(bare_id(), name, payout.id, now, body)
        for _ in range(hooks.copies):
            self._plan(payout, Delivery(event, hooks))

    def _plan(self, payout: Payout, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        payout.deliveries.append(delivery)
        hooks = delivery.hooks
        if hooks.lost:
            delivery.state = "lost"
        elif not self.settings.webhooks_enabled:
            delivery.state = "disabled"
        elif hooks.early:
            self._ready.put_nowait(delivery)
        elif hooks.disorder and payout.steps:  # more steps follow
            payout.withheld.append(delivery)
        else:
            if hooks.disorder:
                _chain([delivery, *reversed(payout.withheld)])
                payout.withheld.clear()
            self.clock.after(self._delay(hooks), lambda: self._ready.put_nowait(delivery))

    @staticmethod
    def _delay(hooks: Hooks) -> float:
        return HOOK_DELAY_SECONDS if hooks.delay_factor == 1 else 1.5 * hooks.delay_factor

    def replay(self, payout: Payout) -> int:
        """Send every stored event of the payout again, with the current secret (`WEB:…/replay-events`)."""
        events = {d.event.id: d.event for d in payout.deliveries if d.event.body}
        for event in events.values():
            delivery = Delivery(event, Hooks(), secret=self.secret)
            self.deliveries.append(delivery)
            payout.deliveries.append(delivery)
            self._ready.put_nowait(delivery)
        return len(events)

    async def _work(self) -> None:
        """One sender: take a due delivery, try it once, and schedule what follows."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            while True:
                delivery = await self._ready.get()
                if not self.settings.webhooks_enabled:
                    delivery.state = "disabled"
                    delivery.tried.set()
                    continue
                is_delivered = await self._try(session, delivery)
                self._after_attempt(delivery, is_delivered)

    async def _try(self, session: aiohttp.ClientSession, delivery: Delivery) -> bool:
        """Send one POST. Only a 2xx within the time limit is a success; a redirect is not."""
        is_forged = delivery.hooks.bad_first_signature and delivery.attempts == 0
        if delivery.secret is None:
            delivery.secret = self.previous_secret if delivery.hooks.old_secret else self.secret
        delivery.attempts += 1
        headers = {
            "Content-Type": "application/json",
            "x-razorpay-event-id": delivery.event.id,
            "X-Razorpay-Signature": sign("forged" if is_forged else delivery.secret, delivery.event.body),
            "User-Agent": "Razorpay-Webhook/v1",
        }
        timeout = aiohttp.ClientTimeout(total=self.settings.webhook_timeout_ms / 1000)
        try:
            async with session.post(
                self.url, data=delivery.event.body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                delivery.last_status = answer.status
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            delivery.last_status = None
            return False
        # A forged delivery is not the provider's: whatever the response, the real one still follows.
        return not is_forged and 200 <= answer.status < 300

    def _after_attempt(self, delivery: Delivery, is_delivered: bool) -> None:
        delivery.tried.set()
        for follower in delivery.following:
            self._ready.put_nowait(follower)
        delivery.following = []
        if is_delivered:
            delivery.state = "delivered"
            self._forget_old_bodies(delivery)
        elif self.clock.now() - delivery.event.created_at > GIVE_UP_SECONDS:
            delivery.state = "disabled"
            self.settings.webhooks_enabled = False
        else:
            delivery.state = "retrying"
            wait = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(delivery.attempts - 1, 20))
            self.clock.after(wait, lambda: self._ready.put_nowait(delivery))

    def _forget_old_bodies(self, delivery: Delivery) -> None:
        self._delivered.append(delivery)
        if len(self._delivered) > MAX_REPLAYABLE:
            self._delivered.popleft().event.body = b""


def _chain(deliveries: list[Delivery]) -> None:
    for first, second in itertools.pairwise(deliveries):
        first.following.append(second)


def sign(secret: str, body: bytes) -> str:
    """Hex HMAC-SHA256 of the raw body (`MD:webhooks/validate-test.md`)."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
