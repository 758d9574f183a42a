"""How soon after a withdrawal is due its payout arrives at the provider, when there is nothing else to do."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import requests

from bench import backlog, ours
from bench.figures import median, percentile
from bench.plan import Column, Contender, Figures, Goal, Options, Row, Table, typical
from bench.rivals import baseline
from bench.rivals.shop import service as shop
from bench.service import Payee, Run, Service, Start, payees_of

OURS = "ours"
WINDOW_SECONDS = 1
CALLS_BEFORE = {"known": 0, "new": 2}  # of the provider: a contact and a fund account for a new payee
ABOUT = f"""
One withdrawal at a time, with a cancel window of {WINDOW_SECONDS} s: from the end of the window to the
arrival of the payout at the provider, by the simulator's own record. A new payee takes two calls before it;
the time that the provider needs for these is taken off (measured in the same run). The provider's rate limit
is never reached.
"""
ARRIVALS = """
    SELECT a.id::text, extract(epoch FROM w.created_at)::float8
    FROM payout_attempts a JOIN withdrawals w ON w.id = a.withdrawal_id
"""


def contenders(options: Options) -> list[Contender]:
    """Ours, the commit before it, and the same in Django, whose messages carry the time when they are due."""
    settings = ours.INSTANT | {"CANCEL_WINDOW_SECONDS": str(WINDOW_SECONDS)}

    def idle(run: Run) -> Callable[[], Figures]:
        return partial(_measure, partial(run, settings), options)

    return [
        Contender(OURS, idle(ours.running)),
        Contender(f"commit {baseline.COMMIT}", idle(baseline.running), baseline.missing),
        Contender("Django + Celery", idle(shop.running), shop.missing),
    ]


def _measure(start: Start, options: Options) -> Figures:
    number = options.pick(20, 2)
    known = payees_of(number)
    new = payees_of(2 * number)[number:]
    with start() as service:
        service.give_coins(2 * number)
        backlog.warm_up(service, known)
        call_ms = _provider_ms(service)
        figures: Figures = {"provider_ms": call_ms}
        for name, payees in {"known": known, "new": new}.items():
            delays = _delays_ms(service, payees)
            own = [delay - CALLS_BEFORE[name] * call_ms for delay in delays]
            figures |= {f"median_ms_{name}": median(own), f"p90_ms_{name}": percentile(own, 90)}
        service.check()
    return figures


def _delays_ms(service: Service, payees: Sequence[Payee]) -> list[float]:
    before = service.simulator.get("calls", limit=0)["next"]
    for payee in payees:
        service.withdraw([payee], connections=1)
        # At any phase of what runs periodically.
        time.sleep(WINDOW_SECONDS * random.uniform(1.2, 1.8))
    service.wait_until_final()
    calls = service.simulator.get("calls", since=before)["items"]
    arrived = {call["idempotency_key"]: call["wall"] for call in calls if call["idempotency_key"]}
    due = _due(service)
    return [(moment - due[key]) * 1000 for key, moment in arrived.items()]


def _due(service: Service) -> Mapping[str, float]:
    with service.database() as connection:
        rows = connection.execute(ARRIVALS).fetchall()
    return {attempt: created_at + WINDOW_SECONDS for attempt, created_at in rows}


def _provider_ms(service: Service) -> float:
    """How long one call takes that creates a contact, from here."""
    times = []
    with requests.Session() as session:
        session.auth = service.provider_auth
        for number in range(20):
            body = json.dumps({"name": "Bench", "reference_id": f"bench-{number}"})
            started_at = time.perf_counter()
            answer = session.post(
                f"{service.simulator_url}/v1/contacts",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=10,
            )
            times.append((time.perf_counter() - started_at) * 1000)
            assert answer.ok, answer.text
    return median(times)


ROW = Row(
    name="idle",
    title="How soon a due withdrawal is paid",
    about=ABOUT,
    contenders=contenders,
    tables=[
        Table(
            "due → payout at the provider, ms",
            [
                Column("median_ms_known", "known payee, median"),
                Column("p90_ms_known", "p90"),
                Column("median_ms_new", "new payee, median"),
                Column("p90_ms_new", "p90"),
                Column("provider_ms", "(a call of the provider)"),
            ],
        )
    ],
    goals=[
        Goal("at most 60 ms for a known payee", typical(OURS, "median_ms_known"), most=60),
        Goal("at most 120 ms for a new payee", typical(OURS, "median_ms_new"), most=120),
    ],
)
