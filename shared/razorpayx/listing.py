"""Reads what RazorpayX lists for a period, completely or not at all.

The lists have offsets and no cursor, their order is not documented, and rows may come late or move while
one pages. So each list is cut by time into slices of bounded size; each slice is paged with overlap and read
again until two readings agree. What cannot be read so is NotReadable: half a list would look like rows that
are missing.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol, TypeVar

from shared.razorpayx.answers import (
    NotTaken,
    Refused,
    Reply,
    Throttled,
    Unknown,
    read_error,
    read_json,
)
from shared.razorpayx.lists import says_absent
from shared.razorpayx.statements import (
    Line,
    Listed,
    ListedPayout,
    parse_line,
    parse_payout,
    read_page,
)

PAGE_ROWS = 100  # the most that one page holds (razorpayx.md §1)
OVERLAP_ROWS = 5  # each page begins with the last rows of the one before: if none is known, rows have moved
SLICE_ROWS = 2000  # deeper offsets make each page slower for the provider
# One second can hold more than a slice. Above this many rows in it something else is wrong.
DEEPEST_ROWS = 20_000
READINGS = 6  # of one slice, before we say that the list does not come to rest
TRIES = 6  # of one page
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 30.0

T = TypeVar("T")


class NotReadable(Exception):
    """The provider's side could not be read completely; says in plain words what it answered."""


class Asks(Protocol):
    """Who can ask RazorpayX: the worker's client."""

    def get(self, path: str, query: dict[str, str | int]) -> Reply | Throttled | Unknown:
        """One call."""
        ...


class Listing:
    """The lists of one account. Every method raises NotReadable."""

    def __init__(
        self, provider: Asks, account_number: str, *, wait_seconds: float = FIRST_WAIT_SECONDS
    ) -> None:
        self._provider, self._account_number = provider, account_number
        self._wait_seconds = wait_seconds
        self.calls = 0

    def payouts(self, since: datetime, until: datetime) -> dict[str, ListedPayout]:
        """By id: every payout made from `since` to `until`, and perhaps some of the seconds around them."""
        return self._everything("/v1/payouts", parse_payout, since, until)

    def lines(self, since: datetime, until: datetime) -> dict[str, Line]:
        """By id: every line of the statement from `since` to `until`, and perhaps some around them."""
        return self._everything("/v1/transactions", parse_line, since, until)

    def payout(self, payout_id: str) -> ListedPayout | None:
        """One payout as it stands; None when the provider says that there is none with this id."""

        def read(reply: Reply) -> ListedPayout | NotTaken | None:
            if 200 <= reply.status < 300:
                found = parse_payout(read_json(reply.body))
                return found if found and found.id == payout_id else Unknown("Not the payout asked for")
            error = read_error(reply)
            return None if says_absent(error) else error

        return self._ask(f"/v1/payouts/{payout_id}", {}, read)

    def _everything(
        self, path: str, parse: Callable[[Any], Listed | None], since: datetime, until: datetime
    ) -> dict[str, Listed]:
        found: dict[str, Listed] = {}
        # A second more on each side: whether `from` and `to` are included is not documented.
        for begin, end in self._slices(path, parse, int(since.timestamp()) - 1, int(until.timestamp()) + 1):
            found |= self._agreed(path, parse, begin, end)
        return found

    def _slices(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> Iterator[tuple[int, int]]:
        """The interval in pieces of at most SLICE_ROWS each, which share a second with their neighbours."""
        if end - begin > 2 and self._page(path, parse, begin, end, skip=SLICE_ROWS, count=1):
            middle = (begin + end) // 2
            yield from self._slices(path, parse, begin, middle + 1)
            yield from self._slices(path, parse, middle, end)
        else:
            yield begin, end

    def _agreed(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> dict[str, Listed]:
        """One slice, read until two readings in a row have the same rows; the later one counts."""
        before = self._reading(path, parse, begin, end)
        for _ in range(READINGS - 1):
            now = self._reading(path, parse, begin, end)
            if now is not None and before is not None and now.keys() == before.keys():
                return now
            before = now
        raise NotReadable(f"{path} does not come to rest: {READINGS} readings brought different rows")

    def _reading(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> dict[str, Listed] | None:
        """The rows of one slice; None when they moved under our eyes."""
        found: dict[str, Listed] = {}
        while len(found) <= DEEPEST_ROWS:
            overlap = min(OVERLAP_ROWS, len(found))
            page = self._page(path, parse, begin, end, skip=len(found) - overlap, count=PAGE_ROWS)
            known = sum(row.id in found for row in page)
            if known != overlap:
                return None
            found |= {row.id: row for row in page}
            if len(page) == overlap:  # only an empty rest is an end: a short page is none
                return found
        raise NotReadable(f"{path} lists more than {DEEPEST_ROWS} rows within {end - begin} s")

    def _page(
        self,
        path: str,
        parse: Callable[[Any], Listed | None],
        begin: int,
        end: int,
        *,
        skip: int,
        count: int,
    ) -> list[Listed]:
        query: dict[str, str | int] = {
            "account_number": self._account_number,
            "from": begin,
            "to": end,
            "count": count,
            "skip": skip,
        }
        return self._ask(path, query, lambda reply: read_page(reply, parse))

    def _ask(self, path: str, query: dict[str, str | int], read: Callable[[Reply], T | NotTaken]) -> T:
        """Ask until it is answered, each time a little more patiently, but not for ever."""
        answer: T | NotTaken = Unknown("never asked")
        for tried in range(TRIES):
            if tried:
                time.sleep(self._patience(tried, answer))
            self.calls += 1
            reply = self._provider.get(path, query)
            answer = read(reply) if isinstance(reply, Reply) else reply
            if not isinstance(answer, (Refused, Throttled, Unknown)):
                return answer
            if isinstance(answer, Refused) or (
                isinstance(answer, Throttled) and answer.because in ("refuses_us", "refuses_request")
            ):
                break
        raise NotReadable(f"{path} was not answered: {_words(answer)}")

    @staticmethod
    def _patience(tried: int, answer: object) -> float:
        asked = getattr(answer, "retry_after_seconds", None) or 0.0
        return float(min(max(FIRST_WAIT_SECONDS * 2 ** (tried - 1), asked), LONGEST_WAIT_SECONDS))


def _words(answer: object) -> str:
    http_status = getattr(answer, "http_status", None)
    description = str(getattr(answer, "description", answer))
    return f"{description} (HTTP {http_status})" if http_status else description
