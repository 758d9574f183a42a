"""Read RazorpayX's lists for a period, completely or not at all.

The lists have offsets and no cursor, their order is not documented, and rows may arrive late or move between
pages. So each list is cut by time into slices of bounded size, and each slice is paged with overlap and read
again until two readings agree. Anything else is NotReadable: half a list would look like missing rows.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol, TypeVar

from shared.providers.answers import ListedPayout, NotAccepted, Refused, StatementLine, Throttled, Unknown
from shared.providers.port import NotReadable
from shared.providers.razorpayx.answers import Reply, read_error, read_json
from shared.providers.razorpayx.pages import is_absent
from shared.providers.razorpayx.statements import (
    Listed,
    parse_line,
    parse_payout,
    read_page,
)

PAGE_ROWS = 100  # the maximum of one page (razorpayx.md §1)
OVERLAP_ROWS = 5  # each page begins with the last rows of the previous one: if they differ, rows have moved
SLICE_ROWS = 2000  # deeper offsets make each page slower for the provider
MAX_SLICE_ROWS = 20_000  # one second can hold more than a slice, but not this many rows
MAX_READINGS = 6  # of one slice
MAX_TRIES = 6  # of one page
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0

T = TypeVar("T")


class PageSource(Protocol):
    """Fetches pages from RazorpayX: the worker's client."""

    def get(self, path: str, query: dict[str, str | int]) -> Reply | Throttled | Unknown:
        """Make one call."""
        ...


class Listing:
    """The lists of one account. Every method raises NotReadable."""

    def __init__(self, source: PageSource, account_number: str) -> None:
        self._source = source
        self._account_number = account_number
        self.calls = 0

    def payouts(self, since: datetime, until: datetime) -> dict[str, ListedPayout]:
        """Return, by id, every payout created from `since` to `until`, and perhaps some around them."""
        return self._read_all("/v1/payouts", parse_payout, since, until)

    def lines(self, since: datetime, until: datetime) -> dict[str, StatementLine]:
        """Return, by id, every statement line from `since` to `until`, and perhaps some around them."""
        return self._read_all("/v1/transactions", parse_line, since, until)

    def payout(self, payout_id: str) -> ListedPayout | None:
        """Return one payout as it is now; None if the provider reports that it does not exist."""

        def read(reply: Reply) -> ListedPayout | NotAccepted | None:
            if 200 <= reply.status < 300:
                payout = parse_payout(read_json(reply.body))
                return (
                    payout
                    if payout and payout.id == payout_id
                    else Unknown("The answer is about another payout")
                )
            error = read_error(reply)
            return None if is_absent(error) else error

        return self._fetch(f"/v1/payouts/{payout_id}", {}, read)

    def _read_all(
        self, path: str, parse: Callable[[Any], Listed | None], since: datetime, until: datetime
    ) -> dict[str, Listed]:
        rows: dict[str, Listed] = {}
        # A second more on each side, because it is not documented whether `from` and `to` are inclusive.
        for begin, end in self._slices(path, parse, int(since.timestamp()) - 1, int(until.timestamp()) + 1):
            rows |= self._read_slice(path, parse, begin, end)
        return rows

    def _slices(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> Iterator[tuple[int, int]]:
        """Cut the interval into slices of at most SLICE_ROWS, which share a second with their neighbours."""
        if end - begin > 2 and self._page(path, parse, begin, end, skip=SLICE_ROWS, count=1):
            middle = (begin + end) // 2
            yield from self._slices(path, parse, begin, middle + 1)
            yield from self._slices(path, parse, middle, end)
        else:
            yield begin, end

    def _read_slice(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> dict[str, Listed]:
        """Read one slice until two readings in a row have the same rows; the later one counts."""
        previous = self._read_once(path, parse, begin, end)
        for _ in range(MAX_READINGS - 1):
            rows = self._read_once(path, parse, begin, end)
            if rows is not None and previous is not None and rows.keys() == previous.keys():
                return rows
            previous = rows
        raise NotReadable(f"{path} keeps changing: {MAX_READINGS} readings returned different rows")

    def _read_once(
        self, path: str, parse: Callable[[Any], Listed | None], begin: int, end: int
    ) -> dict[str, Listed] | None:
        """Read one slice; None if rows moved between its pages."""
        rows: dict[str, Listed] = {}
        while len(rows) <= MAX_SLICE_ROWS:
            overlap = min(OVERLAP_ROWS, len(rows))
            page = self._page(path, parse, begin, end, skip=len(rows) - overlap, count=PAGE_ROWS)
            known = sum(row.id in rows for row in page)
            if known != overlap:
                return None
            rows |= {row.id: row for row in page}
            if len(page) == overlap:  # only a page without new rows is the end; a short page is not
                return rows
        raise NotReadable(f"{path} lists more than {MAX_SLICE_ROWS:,} rows within {end - begin} s")

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
        return self._fetch(path, query, lambda reply: read_page(reply, parse))

    def _fetch(self, path: str, query: dict[str, str | int], read: Callable[[Reply], T | NotAccepted]) -> T:
        """Call until there is an answer, with backoff, at most MAX_TRIES times."""
        answer: T | NotAccepted = Unknown("not called")
        for tries in range(MAX_TRIES):
            if tries:
                time.sleep(self._backoff_seconds(tries, answer))
            self.calls += 1
            reply = self._source.get(path, query)
            answer = read(reply) if isinstance(reply, Reply) else reply
            if not isinstance(answer, (Refused, Throttled, Unknown)):
                return answer
            if isinstance(answer, Refused) or (
                isinstance(answer, Throttled) and answer.cause in ("refuses_us", "refuses_request")
            ):
                break
        raise NotReadable(f"{path} was not answered: {_describe(answer)}")

    @staticmethod
    def _backoff_seconds(tries: int, answer: object) -> float:
        retry_after = getattr(answer, "retry_after_seconds", None) or 0.0
        return float(min(max(FIRST_WAIT_SECONDS * 2 ** (tries - 1), retry_after), MAX_WAIT_SECONDS))


def _describe(answer: object) -> str:
    http_status = getattr(answer, "http_status", None)
    description = str(getattr(answer, "description", answer))
    return f"{description} (HTTP {http_status})" if http_status else description
