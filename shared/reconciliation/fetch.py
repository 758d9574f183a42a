"""Fetch both sides of a period as pairs: each payout once, with its attempt and its statement lines.

A payout belongs to the period in which the provider created it, a statement line to the period of its own
time. Both are read a little beyond the edges, so a payout of 23:59:59 meets its statement line of 00:00:01.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from shared.ids import parse_id
from shared.providers.answers import ListedPayout, StatementLine
from shared.providers.port import Listing, NotReadable
from shared.reconciliation import our_payouts
from shared.reconciliation.diff import OurAttempt, Pair, lacks_statement_line

EDGE_MARGIN = timedelta(hours=1)
# Missing statement lines are searched this far beyond the period: the provider may queue a payout, and a bank
# may return money, days later.
SEARCHED_DAYS = 8
# Payouts that are not in the list are queried one by one. More than this means that the list is incomplete.
MAX_SINGLE_LOOKUPS = 1000


@dataclass(slots=True)
class FetchedPeriod:
    """Everything to compare in a period."""

    pairs: list[Pair] = field(default_factory=list)
    deposits: list[StatementLine] = field(default_factory=list)  # money added to the account
    under_other_credentials: int = 0  # number of attempts that the current credentials may not see
    statement_until: datetime | None = None  # how far the statement was read

    def attempts(self) -> set[UUID]:
        """The ids of our attempts in the pairs."""
        return {pair.ours.attempt_id for pair in self.pairs if pair.ours}


@dataclass(slots=True)
class _Index:
    """Payouts, statement lines and attempts by their ids, while pairs are built."""

    payouts: dict[str, ListedPayout]
    lines: dict[str, list[StatementLine]]
    by_payout: dict[str, OurAttempt] = field(default_factory=dict)
    by_attempt: dict[UUID, OurAttempt] = field(default_factory=dict)

    def add(self, attempts: Iterable[OurAttempt]) -> None:
        for attempt in attempts:
            self.by_attempt[attempt.attempt_id] = attempt
            if attempt.payout_id:
                self.by_payout[attempt.payout_id] = attempt

    def attempt_of(self, payout: ListedPayout) -> OurAttempt | None:
        reference = parse_id(payout.report.reference_id or "")
        return self.by_payout.get(payout.id) or (self.by_attempt.get(reference) if reference else None)


class PeriodFetcher:
    """Fetches both sides of a period. Every method may raise NotReadable."""

    def __init__(
        self,
        listing: Listing,
        connection: Connection,
        since: datetime,
        until: datetime,
        now: datetime,
        identity: str,
    ) -> None:
        self._listing = listing
        self._connection = connection
        self._since = since
        self._until = until
        self._now = now
        self._identity = identity

    def fetch(self) -> FetchedPeriod:
        """Everything to compare. Payouts are read first, so the statement is at least as recent."""
        payouts = self._listing.payouts(self._since - EDGE_MARGIN, self._until + EDGE_MARGIN)
        read_until = self._until + EDGE_MARGIN
        statement = self._listing.lines(self._since - EDGE_MARGIN, read_until)
        index = _Index(payouts, _group_by_payout(statement.values()))
        period = FetchedPeriod()
        unlisted = self._unlisted_attempts(index, period)
        lines = [line for line in statement.values() if self._is_within(line.created_at)]
        self._look_up_payouts(index, [attempt.payout_id for attempt in unlisted], lines)
        self._load_attempts(index, lines)
        self._build_pairs(index, period, unlisted, lines)
        period.statement_until = self._find_missing_lines(period.pairs, read_until)
        return period

    def _is_within(self, moment: datetime) -> bool:
        return self._since <= moment < self._until

    def _unlisted_attempts(self, index: _Index, period: FetchedPeriod) -> list[OurAttempt]:
        """Our attempts of the period whose payout is not in the provider's list."""
        ours = our_payouts.created_between(self._connection, self._since, self._until)
        missing = [attempt for attempt in ours if attempt.payout_id not in index.payouts]
        period.under_other_credentials = sum(attempt.sent_as != self._identity for attempt in missing)
        missing = [attempt for attempt in missing if attempt.sent_as == self._identity]
        latest = max((attempt.last_sent_at for attempt in missing), default=self._until)
        if latest > self._until + EDGE_MARGIN:
            # Claimed in the period but sent much later: the provider was down, or payouts were paused.
            index.payouts |= self._listing.payouts(self._until + EDGE_MARGIN, latest + EDGE_MARGIN)
        index.add(missing)
        return [attempt for attempt in missing if attempt.payout_id not in index.payouts]

    def _look_up_payouts(self, index: _Index, ours: Iterable[str | None], lines: list[StatementLine]) -> None:
        """Query payouts that our ledger or the statement name but the list lacks, such as older ones."""
        unlisted = {*ours, *(line.payout_id for line in lines)} - {None} - index.payouts.keys()
        if len(unlisted) > MAX_SINGLE_LOOKUPS:
            raise NotReadable(f"The list lacks {len(unlisted)} payouts that our ledger or the statement name")
        for payout_id in sorted(filter(None, unlisted)):
            payout = self._listing.payout(payout_id)
            if payout is not None:
                index.payouts[payout_id] = payout
        if not index.payouts and any(line.payout_id for line in lines):
            raise NotReadable("The list has none of the payouts that the statement names")

    def _load_attempts(self, index: _Index, lines: list[StatementLine]) -> None:
        references = (parse_id(payout.report.reference_id or "") for payout in index.payouts.values())
        index.add(our_payouts.by_attempt_ids(self._connection, {ref for ref in references if ref}))
        payout_ids = index.payouts.keys() | {line.payout_id for line in lines if line.payout_id}
        index.add(our_payouts.by_payout_ids(self._connection, payout_ids - index.by_payout.keys()))

    def _build_pairs(
        self, index: _Index, period: FetchedPeriod, unlisted: list[OurAttempt], lines: list[StatementLine]
    ) -> None:
        in_statement = {line.payout_id for line in lines}
        payouts_of: dict[UUID, set[str]] = defaultdict(set)  # by attempt
        for payout in index.payouts.values():
            ours = index.attempt_of(payout)
            if ours:
                payouts_of[ours.attempt_id] |= {payout.id, ours.payout_id or payout.id}
        for payout in index.payouts.values():
            is_complete = self._is_within(payout.created_at)
            if not is_complete and payout.id not in in_statement:
                continue  # it belongs to another period
            ours = index.attempt_of(payout)
            others = payouts_of[ours.attempt_id] - {payout.id} if ours and ours.payout_id != payout.id else ()
            own_lines = index.lines[payout.id]
            if not is_complete:
                own_lines = [line for line in own_lines if self._is_within(line.created_at)]
            period.pairs.append(Pair(payout, ours, list(own_lines), is_complete, tuple(sorted(others))))
        unmatched = {attempt.payout_id: attempt for attempt in unlisted}
        unmatched |= {name: index.by_payout[name] for name in in_statement if name in index.by_payout}
        for payout_id, attempt in unmatched.items():
            if payout_id and payout_id not in index.payouts:
                period.pairs.append(Pair(None, attempt, list(index.lines[payout_id])))
        self._add_unmatched_lines(index, period, lines)

    def _add_unmatched_lines(self, index: _Index, period: FetchedPeriod, lines: list[StatementLine]) -> None:
        for line in lines:
            if line.source == "bank_transfer" and not line.debit_paise:
                period.deposits.append(line)
            elif line.payout_id not in index.payouts and line.payout_id not in index.by_payout:
                period.pairs.append(Pair(None, None, [line]))

    def _find_missing_lines(self, pairs: list[Pair], read_until: datetime) -> datetime:
        """Read the statement further, day by day, while a payout of the period lacks a line. Returns the time
        up to which it was read.
        """
        incomplete = {pair.theirs.id: pair for pair in pairs if pair.theirs and lacks_statement_line(pair)}
        end = min(self._now, self._until + timedelta(days=SEARCHED_DAYS))
        while incomplete and read_until < end:
            until = min(read_until + timedelta(days=1), end)
            for line in self._listing.lines(read_until, until).values():
                pair = incomplete.get(line.payout_id or "")
                if pair and line not in pair.lines:
                    pair.lines.append(line)
            incomplete = {name: pair for name, pair in incomplete.items() if lacks_statement_line(pair)}
            read_until = until
        return read_until


def _group_by_payout(lines: Iterable[StatementLine]) -> dict[str, list[StatementLine]]:
    grouped: dict[str, list[StatementLine]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: (line.created_at, line.id)):
        if line.payout_id:
            grouped[line.payout_id].append(line)
    return grouped
