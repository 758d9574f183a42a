"""One comparison, from the first call to the last record.

The provider's news goes through the one door first: a webhook that was missed is no discrepancy once it is
applied. What differs then is looked at again, there and here, before anything is written down; so what moved
between two readings raises nothing. If the provider cannot be read completely, nothing is changed at all.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, func, select, update

from shared import withdrawals
from shared.db import patient_engine, told_plainly, transaction
from shared.errors import BadRequest, Unavailable
from shared.models import ReconciliationRun
from shared.razorpayx.listing import Asks, Listing, NotReadable
from shared.reconciliation import books, comparing, records, summing
from shared.reconciliation.comparing import Finding, Pair, compare, has_news
from shared.reconciliation.gathering import MOST_ALONE, Gathered, Gathering
from shared.reconciliation.summing import Judged, Totals
from shared.settings import settings
from shared.states import AttemptState

# A bank's reference is used once. So far back a payment of another day under the same one is looked for.
SAME_UTR_DAYS = 8

log = structlog.get_logger()


@dataclass(slots=True)
class Result:
    """What a comparison came to. Paise in the totals."""

    run_id: int
    since: datetime
    until: datetime
    outcome: str = "incomplete"
    detail: str | None = None
    judged: list[Judged] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    exceptions: int = 0
    applied: int = 0
    closed: int = 0
    elsewhere: int = 0
    calls: int = 0


def reconcile(provider: Asks, since: datetime, until: datetime) -> Result:
    """Compare our books with the provider's, for what the provider made from `since` until before `until`.

    Raises BadRequest (no period), Unavailable.
    """
    if since >= until:
        raise BadRequest("No period", "It must begin before it ends", code="no_period")
    listing = Listing(provider, settings().razorpayx_account_number)
    run_id, now = _begin(since, until)
    result = Result(run_id, since, until)
    try:
        with told_plainly(), patient_engine().connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            _compare(result, listing, connection, now)
    except NotReadable as error:
        result.outcome, result.detail = "incomplete", str(error)
    result.calls = listing.calls
    _end(result)
    return result


def _compare(result: Result, listing: Listing, connection: Connection, now: datetime) -> None:
    identity = settings().razorpayx_identity
    gathered = Gathering(listing, connection, result.since, result.until, now, identity).gather()
    applied = _settle_what_differs(gathered, listing, connection, now)
    result.applied, result.elsewhere = len(applied), gathered.elsewhere
    twice = _utrs_twice(connection, gathered.pairs, result.since)
    judged = {id(pair): Judged(pair, was_applied=id(pair) in applied) for pair in gathered.pairs}
    found = set()
    for pair, finding in [*_findings(gathered.pairs, set(twice), now), *_of_utrs(twice)]:
        found.add((finding.kind, finding.subject))
        _write_down(judged[id(pair)], finding)
    utrs = (pair.report.utr for pair in gathered.pairs if pair.report and pair.report.utr)
    result.closed = records.close_what_is_over(gathered.pairs, utrs, found)
    result.judged = list(judged.values())
    result.totals = summing.add_up(result.judged, gathered.deposits)
    for row in books.paid_outside(connection, result.since, result.until):
        result.totals.add_outside(row.paid_via, row.number, row.paise)
    result.exceptions = len({record for one in result.judged for record in one.records})
    is_clean = not result.exceptions and not result.totals.remainder
    result.outcome = "clean" if is_clean else "exceptions"


def _settle_what_differs(
    gathered: Gathered, listing: Listing, connection: Connection, now: datetime
) -> set[int]:
    """Apply news; look again at what still differs, there and here. Returns which pairs learnt something."""
    applied: set[int] = set()
    suspects = [pair for pair in gathered.pairs if has_news(pair) or compare(pair, now)]
    for look in range(2):
        for pair in suspects:
            if has_news(pair) and _apply(pair):
                applied.add(id(pair))
        _read_ours_again(connection, suspects)
        suspects = [pair for pair in suspects if has_news(pair) or compare(pair, now)]
        if look == 0:
            for pair in suspects[:MOST_ALONE]:
                if pair.theirs:
                    pair.theirs = listing.payout(pair.theirs.id) or pair.theirs
            _read_ours_again(connection, suspects)
    return applied


def _apply(pair: Pair) -> bool:
    """Let the provider's news through the one door. What it does not take becomes a finding."""
    assert pair.report is not None
    try:
        with transaction() as session:
            effect = withdrawals.apply_report(session, pair.report, records.SOURCE)
    except Unavailable:
        raise
    except Exception as error:
        log.error("[RECONCILE] not applied", payout_id=pair.report.payout_id, error=type(error).__name__)
        return False
    return effect not in ("conflict", "late", "unmatched")


def _read_ours_again(connection: Connection, pairs: Iterable[Pair]) -> None:
    ours = {pair.ours.attempt_id: pair for pair in pairs if pair.ours}
    fresh = {attempt.attempt_id: attempt for attempt in books.of_attempts(connection, ours)}
    for pair in pairs:
        if pair.ours:
            pair.ours = fresh[pair.ours.attempt_id]


def _findings(pairs: Iterable[Pair], twice: set[str], now: datetime) -> Iterable[tuple[Pair, Finding]]:
    for pair in pairs:
        for finding in compare(pair, now):
            # A UTR that stands for two payouts is one finding, whoever has it wrong.
            if finding.kind != comparing.UTR or not _utrs(pair) & twice:
                yield pair, finding


def _utrs(pair: Pair) -> set[str]:
    """The UTRs under which either side says that this was paid."""
    told = set()
    if pair.report and pair.report.outcome == "paid":
        told.add(pair.report.utr)
    if pair.ours and pair.ours.state == AttemptState.PAID and not pair.beside:
        told.add(pair.ours.utr)
    return {utr for utr in told if utr}


def _utrs_twice(
    connection: Connection, pairs: Iterable[Pair], since: datetime
) -> dict[str, tuple[list[Pair], set[str]]]:
    """UTRs under which more than one payout was paid: the pairs that have it, and all its payouts."""
    under: dict[str, list[Pair]] = defaultdict(list)
    payouts: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for utr in _utrs(pair):
            under[utr].append(pair)
            payouts[utr].add(_payout_id(pair))
    known = [payout_id for ids in payouts.values() for payout_id in ids]
    earlier = since - timedelta(days=SAME_UTR_DAYS)
    for row in books.paid_elsewhere(connection, list(under), known, earlier):
        payouts[row.utr].add(row.payout_id)
    return {utr: (under[utr], payouts[utr]) for utr in under if len(payouts[utr]) > 1}


def _payout_id(pair: Pair) -> str:
    payout_id = pair.theirs.id if pair.theirs else pair.ours.payout_id if pair.ours else None
    return payout_id or ""


def _of_utrs(twice: dict[str, tuple[list[Pair], set[str]]]) -> Iterable[tuple[Pair, Finding]]:
    for utr, (pairs, payout_ids) in twice.items():
        ours = {"withdrawals": sorted({str(pair.ours.withdrawal_id) for pair in pairs if pair.ours})}
        theirs = {"payouts": sorted(payout_ids)}
        for pair in pairs:
            yield pair, Finding(comparing.UTR_TWICE, utr, ours, theirs)


def _write_down(judged: Judged, finding: Finding) -> None:
    record = records.settle(finding)
    if record is None:
        judged.explained.append(finding.kind)
    else:
        judged.kinds.append(finding.kind)
        judged.records.append(record)


def _begin(since: datetime, until: datetime) -> tuple[int, datetime]:
    with transaction() as session:
        run = ReconciliationRun(from_at=since, to_at=until)
        session.add(run)
        session.flush()
        return run.id, session.scalars(select(func.now())).one()


def _end(result: Result) -> None:
    done = {
        "finished_at": func.now(),
        "outcome": result.outcome,
        "detail": result.detail,
        "compared": len(result.judged),
        "exceptions": result.exceptions,
        "totals": result.totals.as_json(),
    }
    with transaction() as session:
        session.execute(update(ReconciliationRun).where(ReconciliationRun.id == result.run_id).values(**done))
    log.info(
        "[RECONCILE] done",
        run_id=result.run_id,
        outcome=result.outcome,
        compared=len(result.judged),
        exceptions=result.exceptions,
        detail=result.detail,
    )
