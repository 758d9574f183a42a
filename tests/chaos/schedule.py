"""The plan of faults as data: the same seed, seconds and names always give the same plan.

Four tracks run in parallel, so that faults coincide: a worker dies while Redis is flushed, the provider drops
its replies and its webhooks are off. Within a track one fault follows the other, and all its faults occur in
random order before any is repeated: a long run has every fault several times.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Name -> (track, minimum and maximum duration in seconds). A killed part stays down for that time.
FAULTS: dict[str, tuple[str, float, float]] = {
    "worker.kill": ("processes", 0.1, 3.0),
    "workers.kill": ("processes", 0.1, 2.0),
    "worker.freeze": ("processes", 7.0, 9.0),  # longer than its lease; then it continues where it was
    "beat.kill": ("processes", 0.1, 4.0),
    "api.kill": ("processes", 0.1, 1.5),
    "api.worker.kill": ("processes", 0.0, 0.0),  # one of its processes; the others continue
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
# A restart takes seconds of a core, so restarts must not be more frequent.
GAPS = {"processes": (6.0, 16.0), "services": (5.0, 12.0), "provider": (1.0, 5.0), "webhooks": (2.0, 6.0)}
WHOLE_GAPS_SECONDS = 120  # a shorter run has shorter gaps, so that it has faults at all
QUIET_START_SECONDS = 1.0

# If the provider denied an existing payout for the whole (shortened) hour, we would refund what it then pays:
# its documents promise that it does not, and no client could tell. So a lie is shorter than two waits between
# look-ups: all lies together give one payout at most four empty look-ups, and a refund needs six.
MAX_LIES = 2


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: its start and duration in seconds, and a random number for the remaining choices."""

    at: float
    lasts: float
    name: str
    dice: int


def plan(seed: int, seconds: float, names: Iterable[str] = FAULTS) -> dict[str, list[Planned]]:
    """Track -> its faults in order of time, all ended after `seconds`. Raises KeyError for an unknown name."""
    wanted = sorted(set(names))
    tracks = {track: [name for name in wanted if FAULTS[name][0] == track] for track in GAPS}
    return {track: list(_track(seed, seconds, track, deck)) for track, deck in tracks.items() if deck}


def _track(seed: int, seconds: float, track: str, deck: list[str]) -> Iterator[Planned]:
    chance = random.Random(f"{seed} {track}")
    scale = min(1.0, seconds / WHOLE_GAPS_SECONDS)
    lies = 0
    at = QUIET_START_SECONDS + chance.uniform(0, GAPS[track][0]) * scale
    for name in _shuffled_rounds(deck, chance):
        _, minimum, maximum = FAULTS[name]
        lasts = chance.uniform(minimum, maximum)
        if at + lasts > seconds:
            return
        lies += name == "lookups.empty"
        if name != "lookups.empty" or lies <= MAX_LIES:
            yield Planned(round(at, 3), round(lasts, 3), name, chance.randrange(2**31))
        at += lasts + max(0.1, chance.uniform(*GAPS[track]) * scale)


def _shuffled_rounds(deck: list[str], chance: random.Random) -> Iterator[str]:
    while True:
        yield from chance.sample(deck, len(deck))
