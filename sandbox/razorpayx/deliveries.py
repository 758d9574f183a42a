"""An event of the simulator and its deliveries; `webhooks.py` sends them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .scenarios import Hooks


@dataclass(slots=True)
class Event:
    """One event. Its id stays the same, however often it is sent."""

    id: str
    name: str
    payout_id: str
    created_at: float
    body: bytes


@dataclass(slots=True, eq=False)
class Delivery:
    """One delivery of an event to the receiver."""

    event: Event
    hooks: Hooks
    state: str = "waiting"  # waiting | retrying | delivered | lost | disabled
    attempts: int = 0
    last_status: int | None = None
    secret: str | None = None  # chosen at the first attempt and kept: `MD:webhooks/validate-test.md`
    following: list[Delivery] = field(default_factory=list)  # sent once this one was tried
    tried: asyncio.Event = field(default_factory=asyncio.Event)
