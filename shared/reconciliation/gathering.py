"""Puts the two sides together: each payout of the period once, with its attempt and its lines.

A payout belongs to the period in which the provider made it, a line of the statement to that of its own
time. Both are read a little beyond the edges, so that what began at 23:59:59 and went on at 00:00:01 meets
its other half.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from shared.ids import parse_id
from shared.razorpayx.listing import Listing, NotReadable
from shared.razorpayx.statements import Line, ListedPayout
from shared.reconciliation import books
from shared.reconciliation.comparing import Ours, Pair, lacks_a_line

EDGE = timedelta(hours=1)
# A payout may wait in the provider's queue, and a bank may give money back, for days: so far behind the
# period the statement is searched for what is missing.
SEARCHED_DAYS = 8
# What no list showed is asked for one by one. More than this says that the list is not whole.
MOST_ALONE = 1000


@dataclass(slots=True)
class Gathered:
    """Everything to compare, and what stands beside it."""

    pairs: list[Pair] = field(default_factory=list)
    deposits: list[Line] = field(default_factory=list)  # money that was added to the account
    elsewhere: int = 0  # attempts under other credentials, which these ones need not know
    statement_until: datetime | None = None

    def attempts(self) -> set[UUID]:
        """Our attempts among the pairs."""
        return {pair.ours.attempt_id for pair in self.pairs if pair.ours}


@dataclass(slots=True)
class _Found:
    """What is known while it is put together."""

    payouts: dict[str, ListedPayout]
    lines: dict[str, list[Line]]
    by_payout: dict[str, Ours] = field(default_factory=dict)
    by_attempt: dict[UUID, Ours] = field(default_factory=dict)

    def remember(self, ours: Iterable[Ours]) -> None:
        for attempt in ours:
            self.by_attempt[attempt.attempt_id] = attempt
            if attempt.payout_id:
                self.by_payout[attempt.payout_id] = attempt

    def ours_of(self, payout: ListedPayout) -> Ours | None:
        reference = parse_id(payout.report.reference_id or "")
        return self.by_payout.get(payout.id) or (self.by_attempt.get(reference) if reference else None)


class Gathering:
    """Reads both sides of a period. Every method may raise NotReadable."""

    def __init__(
        self,
        listing: Listing,
        connection: Connection,
        since: datetime,
        until: datetime,
        now: datetime,
        identity: str,
    ) -> None:
        self._listing, self._connection, self._identity = listing, connection, identity
        self._since, self._until, self._now = since, until, now

    def gather(self) -> Gathered:
        """Everything to compare. The payouts are read first: the statement is then at least as new."""
        payouts = self._listing.payouts(self._since - EDGE, self._until + EDGE)
        read_until = self._until + EDGE
        statement = self._listing.lines(self._since - EDGE, read_until)
        found = _Found(payouts, _by_payout(statement.values()))
        gathered = Gathered()
        ours_alone = self._made_here(found, gathered)
        lines = [line for line in statement.values() if self._is_within(line.created_at)]
        self._ask_alone(found, [attempt.payout_id for attempt in ours_alone], lines)
        self._match(found, lines)
        self._put_together(found, gathered, ours_alone, lines)
        gathered.statement_until = self._search_on(gathered.pairs, read_until)
        return gathered

    def _is_within(self, moment: datetime) -> bool:
        return self._since <= moment < self._until

    def _made_here(self, found: _Found, gathered: Gathered) -> list[Ours]:
        """Our attempts of the period whose payout no list has shown so far."""
        ours = books.made_between(self._connection, self._since, self._until)
        missing = [attempt for attempt in ours if attempt.payout_id not in found.payouts]
        gathered.elsewhere = sum(attempt.sent_as != self._identity for attempt in missing)
        missing = [attempt for attempt in missing if attempt.sent_as == self._identity]
        latest = max((attempt.last_sent_at for attempt in missing), default=self._until)
        if latest > self._until + EDGE:
            # Claimed in the period, and sent much later: the provider was away, or payouts were paused.
            found.payouts |= self._listing.payouts(self._until + EDGE, latest + EDGE)
        found.remember(missing)
        return [attempt for attempt in missing if attempt.payout_id not in found.payouts]

    def _ask_alone(self, found: _Found, ours: Iterable[str | None], lines: list[Line]) -> None:
        """What our books or the statement name, and the list does not: older payouts, and what hides."""
        named = {*ours, *(line.payout_id for line in lines)} - {None} - found.payouts.keys()
        if len(named) > MOST_ALONE:
            raise NotReadable(f"/v1/payouts lacks {len(named)} payouts that our books or the statement name")
        for payout_id in sorted(filter(None, named)):
            payout = self._listing.payout(payout_id)
            if payout is not None:
                found.payouts[payout_id] = payout
        if not found.payouts and any(line.payout_id for line in lines):
            raise NotReadable("/v1/payouts knows nothing of what the statement names")

    def _match(self, found: _Found, lines: list[Line]) -> None:
        references = (parse_id(payout.report.reference_id or "") for payout in found.payouts.values())
        found.remember(books.of_attempts(self._connection, {ref for ref in references if ref}))
        named = found.payouts.keys() | {line.payout_id for line in lines if line.payout_id}
        found.remember(books.of_payouts(self._connection, named - found.by_payout.keys()))

    def _put_together(
        self, found: _Found, gathered: Gathered, ours_alone: list[Ours], lines: list[Line]
    ) -> None:
        named = {line.payout_id for line in lines}
        under: dict[UUID, set[str]] = defaultdict(set)
        for payout in found.payouts.values():
            ours = found.ours_of(payout)
            if ours:
                under[ours.attempt_id] |= {payout.id, ours.payout_id or payout.id}
        for payout in found.payouts.values():
            whole = self._is_within(payout.created_at)
            if not whole and payout.id not in named:
                continue  # another day's
            ours = found.ours_of(payout)
            beside = under[ours.attempt_id] - {payout.id} if ours and ours.payout_id != payout.id else ()
            seen = found.lines[payout.id]
            seen = seen if whole else [line for line in seen if self._is_within(line.created_at)]
            gathered.pairs.append(Pair(payout, ours, list(seen), whole, tuple(sorted(beside))))
        hidden = {attempt.payout_id: attempt for attempt in ours_alone}
        hidden |= {name: found.by_payout[name] for name in named if name in found.by_payout}
        for payout_id, attempt in hidden.items():
            if payout_id and payout_id not in found.payouts:
                gathered.pairs.append(Pair(None, attempt, list(found.lines[payout_id])))
        self._lines_alone(found, gathered, lines)

    def _lines_alone(self, found: _Found, gathered: Gathered, lines: list[Line]) -> None:
        for line in lines:
            if line.source == "bank_transfer" and not line.debit_paise:
                gathered.deposits.append(line)
            elif line.payout_id not in found.payouts and line.payout_id not in found.by_payout:
                gathered.pairs.append(Pair(None, None, [line]))

    def _search_on(self, pairs: list[Pair], read_until: datetime) -> datetime:
        """Read the statement on, day by day, while a payout of the period lacks a line of it."""
        lacking = {pair.theirs.id: pair for pair in pairs if pair.theirs and lacks_a_line(pair)}
        end = min(self._now, self._until + timedelta(days=SEARCHED_DAYS))
        while lacking and read_until < end:
            until = min(read_until + timedelta(days=1), end)
            for line in self._listing.lines(read_until, until).values():
                pair = lacking.get(line.payout_id or "")
                if pair and line not in pair.lines:
                    pair.lines.append(line)
            lacking = {name: pair for name, pair in lacking.items() if lacks_a_line(pair)}
            read_until = until
        return read_until


def _by_payout(lines: Iterable[Line]) -> dict[str, list[Line]]:
    grouped: dict[str, list[Line]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: (line.created_at, line.id)):
        if line.payout_id:
            grouped[line.payout_id].append(line)
    return grouped
