"""What goes wrong and when, as data: the same seed, seconds and names are always the same plan.

Four tracks run beside each other, so that faults meet: a worker dies while Redis is flushed, the provider
drops its replies and its webhooks are off. Within a track one fault follows the other, and each deck of
names is dealt to its end before it is shuffled again: a long run has every fault several times.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# The deck: (track, name) -> how long it lasts, from and to, in seconds. A killed part stays down so long.
FAULTS: dict[str, tuple[str, float, float]] = {
    "worker.kill": ("processes", 0.1, 3.0),
    "workers.kill": ("processes", 0.1, 2.0),
    "worker.freeze": ("processes", 7.0, 9.0),  # longer than its lease, then it goes on where it was
    "beat.kill": ("processes", 0.1, 4.0),
    "api.kill": ("processes", 0.1, 1.5),
    "api.worker.kill": ("processes", 0.0, 0.0),  # one of its processes; the others go on
    "redis.flush": ("services", 0.0, 0.0),
    "redis.restart": ("services", 0.1, 2.0),
    "redis.kill": ("services", 0.1, 3.0),
    "postgres.restart": ("services", 0.1, 2.0),
    "postgres.kill": ("services", 0.1, 1.5),  # it replays its log before it answers
    "postgres.sever": ("services", 0.0, 0.0),
    "provider.500": ("provider", 1.0, 4.0),
    "provider.drop": ("provider", 1.0, 4.0),
    "provider.503": ("provider", 1.0, 4.0),
    "provider.slow": ("provider", 2.0, 4.0),
    "provider.rate": ("provider", 2.0, 5.0),
    "provider.poor": ("provider", 1.0, 4.0),
    "lookups.500": ("provider", 2.0, 6.0),
    "lookups.drop": ("provider", 2.0, 6.0),
    "lookups.empty": ("provider", 1.0, 3.0),
    "hooks.off": ("webhooks", 2.0, 6.0),
    "hooks.twice": ("webhooks", 0.5, 1.0),
    "hooks.late": ("webhooks", 0.5, 1.0),
    "hooks.disorder": ("webhooks", 0.5, 1.0),
    "hooks.forged": ("webhooks", 0.5, 1.0),
    "hooks.again": ("webhooks", 0.0, 0.0),
    "hooks.secret": ("webhooks", 0.2, 1.5),
    "replies.lost": ("provider", 0.5, 1.0),
    "replies.garbage": ("provider", 0.5, 1.0),
    "replies.401": ("provider", 0.5, 1.0),
    "replies.429": ("provider", 0.5, 1.0),
    "bank.offline": ("provider", 2.0, 5.0),
    "network.down": ("provider", 1.0, 3.0),
}
# A restarted process needs seconds of a core: more often, and the machine would do little else.
GAPS = {"processes": (6.0, 16.0), "services": (5.0, 12.0), "provider": (1.0, 5.0), "webhooks": (2.0, 6.0)}
WHOLE_GAPS_SECONDS = 120  # a shorter run has shorter gaps, or it would see nothing
QUIET_START_SECONDS = 1.0

# A provider that denies for a whole (shrunk) hour what it has makes us refund what it then pays: its
# documents give us its word on that, and no client can know better. So it may not lie for so long: a lie is shorter
# than two waits between look-ups, so of all lies together one payout sees four, where six are needed.
MOST_LIES = 2


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: seconds after the start, how long it lasts, and a number for what is left to choose."""

    at: float
    lasts: float
    name: str
    dice: int


def plan(seed: int, seconds: float, names: Iterable[str] = FAULTS) -> dict[str, list[Planned]]:
    """Track -> its faults in order of time, all over after `seconds`. Raises KeyError for an unknown name."""
    wanted = sorted(set(names))
    tracks = {track: [name for name in wanted if FAULTS[name][0] == track] for track in GAPS}
    return {track: list(_track(seed, seconds, track, deck)) for track, deck in tracks.items() if deck}


def _track(seed: int, seconds: float, track: str, deck: list[str]) -> Iterator[Planned]:
    chance = random.Random(f"{seed} {track}")
    scale, lies = min(1.0, seconds / WHOLE_GAPS_SECONDS), 0
    at = QUIET_START_SECONDS + chance.uniform(0, GAPS[track][0]) * scale
    for name in _dealt(deck, chance):
        _, least, most = FAULTS[name]
        lasts = chance.uniform(least, most)
        if at + lasts > seconds:
            return
        lies += name == "lookups.empty"
        if name != "lookups.empty" or lies <= MOST_LIES:
            yield Planned(round(at, 3), round(lasts, 3), name, chance.randrange(2**31))
        at += lasts + max(0.1, chance.uniform(*GAPS[track]) * scale)


def _dealt(deck: list[str], chance: random.Random) -> Iterator[str]:
    while True:
        yield from chance.sample(deck, len(deck))
