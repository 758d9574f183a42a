"""One reconciliation run, from the first call to the last record.

Updates from the provider are applied first (`apply_report`), so a missed webhook is not a mismatch. Remaining
mismatches are fetched again from both sides before they are recorded, so changes between two reads raise
nothing. If the provider cannot be read completely, the run changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, func, select, update

from shared import withdrawals
from shared.db.engines import unbounded_engine
from shared.db.transactions import map_db_errors, transaction
from shared.errors import BadRequest, Unavailable
from shared.models import ReconciliationRun
from shared.providers.port import Listing, NotReadable, ProviderClient
from shared.providers.registry import provider
from shared.reconciliation import day_totals, diff, findings, our_payouts
from shared.reconciliation.day_totals import ComparedPair, Totals
from shared.reconciliation.diff import Finding, Pair, compare, has_update
from shared.reconciliation.fetch import MAX_SINGLE_LOOKUPS, FetchedPeriod, PeriodFetcher
from shared.states import AttemptState

# A UTR is unique to a payment. Earlier payments with the same UTR are searched this far back.
SAME_UTR_DAYS = 8

log = structlog.get_logger()


@dataclass(slots=True)
class Result:
    """The result of a run. Totals are in paise."""

    run_id: int
    since: datetime
    until: datetime
    outcome: str = "incomplete"
    detail: str | None = None
    compared: list[ComparedPair] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    exceptions: int = 0
    applied: int = 0
    closed: int = 0
    under_other_credentials: int = 0
    calls: int = 0


def reconcile(client: ProviderClient, since: datetime, until: datetime) -> Result:
    """Reconcile everything that the provider created from `since` up to, not including, `until`.

    Raises BadRequest (no period), Unavailable.
    """
    if since >= until:
        raise BadRequest("No period", "The period must begin before it ends", code="no_period")
    listing = client.listing()
    run_id, now = _start_run(since, until)
    result = Result(run_id, since, until)
    try:
        with map_db_errors(), unbounded_engine().connect() as raw_connection:
            connection = raw_connection.execution_options(isolation_level="AUTOCOMMIT")
            _compare(result, listing, connection, now)
    except NotReadable as error:
        result.outcome = "incomplete"
        result.detail = str(error)
    result.calls = listing.calls
    _finish_run(result)
    return result


def _compare(result: Result, listing: Listing, connection: Connection, now: datetime) -> None:
    identity = provider().identity()
    period = PeriodFetcher(listing, connection, result.since, result.until, now, identity).fetch()
    updated = _apply_updates(period, listing, connection, now)
    result.applied = len(updated)
    result.under_other_credentials = period.under_other_credentials
    repeated_utrs = _repeated_utrs(connection, period.pairs, result.since)
    compared = {id(pair): ComparedPair(pair, was_updated=id(pair) in updated) for pair in period.pairs}
    current = set()  # (kind, subject) of every finding of this run
    for pair, finding in [
        *_findings(period.pairs, set(repeated_utrs), now),
        *_repeated_utr_findings(repeated_utrs),
    ]:
        current.add((finding.kind, finding.subject))
        _record(compared[id(pair)], finding)
    utrs = (pair.report.utr for pair in period.pairs if pair.report and pair.report.utr)
    result.closed = findings.close_resolved(period.pairs, utrs, current)
    result.compared = list(compared.values())
    result.totals = day_totals.compute_totals(result.compared, period.deposits)
    for row in our_payouts.paid_outside(connection, result.since, result.until):
        result.totals.add_outside(row.paid_via, row.number, row.paise)
    result.exceptions = len({record for item in result.compared for record in item.records})
    is_clean = not result.exceptions and not result.totals.remainder
    result.outcome = "clean" if is_clean else "exceptions"


def _apply_updates(
    period: FetchedPeriod, listing: Listing, connection: Connection, now: datetime
) -> set[int]:
    """Apply updates, then fetch both sides of the remaining mismatches again. Returns the `id()` of each pair
    that was updated.
    """
    updated: set[int] = set()
    suspects = [pair for pair in period.pairs if has_update(pair) or compare(pair, now)]
    for attempt in range(2):
        for pair in suspects:
            if has_update(pair) and _apply(pair):
                updated.add(id(pair))
        _reload_attempts(connection, suspects)
        suspects = [pair for pair in suspects if has_update(pair) or compare(pair, now)]
        if attempt == 0:
            for pair in suspects[:MAX_SINGLE_LOOKUPS]:
                if pair.theirs:
                    pair.theirs = listing.payout(pair.theirs.id) or pair.theirs
            _reload_attempts(connection, suspects)
    return updated


def _apply(pair: Pair) -> bool:
    """Apply the provider's report. Returns False if it was not accepted; then it becomes a finding."""
    assert pair.report is not None
    try:
        with transaction() as session:
            effect = withdrawals.apply_report(session, pair.report, findings.SOURCE)
    except Unavailable:
        raise
    except Exception as error:
        log.error("[RECONCILE] not applied", payout_id=pair.report.payout_id, error=type(error).__name__)
        return False
    return effect not in ("conflict", "late", "unmatched")


def _reload_attempts(connection: Connection, pairs: Iterable[Pair]) -> None:
    attempt_ids = {pair.ours.attempt_id for pair in pairs if pair.ours}
    current = {attempt.attempt_id: attempt for attempt in our_payouts.by_attempt_ids(connection, attempt_ids)}
    for pair in pairs:
        if pair.ours:
            pair.ours = current[pair.ours.attempt_id]


def _findings(
    pairs: Iterable[Pair], repeated_utrs: set[str], now: datetime
) -> Iterable[tuple[Pair, Finding]]:
    for pair in pairs:
        for finding in compare(pair, now):
            # A UTR that is used by two payouts is one finding, whichever payout has the wrong one.
            if finding.kind != diff.UTR_DIFFERS or not _utrs(pair) & repeated_utrs:
                yield pair, finding


def _utrs(pair: Pair) -> set[str]:
    """The UTRs with which either side reports the pair as paid."""
    utrs = set()
    if pair.report and pair.report.outcome == "paid":
        utrs.add(pair.report.utr)
    if pair.ours and pair.ours.state == AttemptState.PAID and not pair.other_payout_ids:
        utrs.add(pair.ours.utr)
    return {utr for utr in utrs if utr}


def _repeated_utrs(
    connection: Connection, pairs: Iterable[Pair], since: datetime
) -> dict[str, tuple[list[Pair], set[str]]]:
    """UTRs of more than one paid payout: for each, its pairs and its payout ids."""
    pairs_by_utr: dict[str, list[Pair]] = defaultdict(list)
    payout_ids: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for utr in _utrs(pair):
            pairs_by_utr[utr].append(pair)
            payout_ids[utr].add(_payout_id(pair))
    known_ids = [payout_id for ids in payout_ids.values() for payout_id in ids]
    earlier = since - timedelta(days=SAME_UTR_DAYS)
    for row in our_payouts.paid_with_utrs(connection, list(pairs_by_utr), known_ids, earlier):
        payout_ids[row.utr].add(row.payout_id)
    return {
        utr: (utr_pairs, payout_ids[utr])
        for utr, utr_pairs in pairs_by_utr.items()
        if len(payout_ids[utr]) > 1
    }


def _payout_id(pair: Pair) -> str:
    payout_id = pair.theirs.id if pair.theirs else pair.ours.payout_id if pair.ours else None
    return payout_id or ""


def _repeated_utr_findings(
    repeated_utrs: dict[str, tuple[list[Pair], set[str]]],
) -> Iterable[tuple[Pair, Finding]]:
    for utr, (pairs, payout_ids) in repeated_utrs.items():
        ours = {"withdrawals": sorted({str(pair.ours.withdrawal_id) for pair in pairs if pair.ours})}
        theirs = {"payouts": sorted(payout_ids)}
        for pair in pairs:
            yield pair, Finding(diff.UTR_TWICE, utr, ours, theirs)


def _record(item: ComparedPair, finding: Finding) -> None:
    record_id = findings.record_finding(finding)
    if record_id is None:
        item.explained_kinds.append(finding.kind)
    else:
        item.kinds.append(finding.kind)
        item.records.append(record_id)


def _start_run(since: datetime, until: datetime) -> tuple[int, datetime]:
    with transaction() as session:
        run = ReconciliationRun(from_at=since, to_at=until)
        session.add(run)
        session.flush()
        return run.id, session.scalars(select(func.now())).one()


def _finish_run(result: Result) -> None:
    values = {
        "finished_at": func.now(),
        "outcome": result.outcome,
        "detail": result.detail,
        "compared": len(result.compared),
        "exceptions": result.exceptions,
        "totals": result.totals.as_json(),
    }
    with transaction() as session:
        session.execute(
            update(ReconciliationRun).where(ReconciliationRun.id == result.run_id).values(**values)
        )
    log.info(
        "[RECONCILE] done",
        run_id=result.run_id,
        outcome=result.outcome,
        compared=len(result.compared),
        exceptions=result.exceptions,
        detail=result.detail,
    )
