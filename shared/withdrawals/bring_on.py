"""The worker's work on a batch: claim, call, record. A crash at any line loses nothing.

The rows of a batch share the two transactions, and no row holds up another. One that needs the lock of
another row gets a transaction of its own; if one raises, the batch is halved until that one is alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog

from shared.db.batches import NotInBatch
from shared.errors import Unavailable
from shared.ids import parse_id
from shared.providers.answers import Answer
from shared.providers.calls import Calls, room
from shared.providers.port import ProviderClient
from shared.providers.steps import Step
from shared.withdrawals.claim import claim
from shared.withdrawals.record import postpone_after_error, record_answers

Item = TypeVar("Item")

log = structlog.get_logger()


def bring_on(keys: Sequence[str], provider: ProviderClient) -> None:
    """Take the next step of each withdrawal whose id a message carries.

    A withdrawal whose step raises is postponed, except for Unavailable, which the database could not record.
    Raises the first error, after all others are done.
    """
    work = Work()
    calls = Calls(provider)
    with room():
        calls.add(work.each(_ids(keys), claim, of=lambda key: key))
    for results in calls.results():
        answers = work.answers(results)
        calls.add(work.each(answers, record_answers, of=lambda pair: pair[0].withdrawal_id))
    work.raise_first_error()


class Work:
    """One batch, and the errors of its rows."""

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    def each(
        self,
        items: Sequence[Item],
        verb: Callable[[Sequence[Item]], list[Step]],
        *,
        of: Callable[[Item], UUID],
    ) -> list[Step]:
        """Do all items in one transaction or, if that fails, in several."""
        if not items:
            return []
        apart = NotInBatch()
        try:
            return verb(items)
        except NotInBatch as error:
            assert len(items) > 1, "one row alone may take every lock"
            apart = error
        except Unavailable as error:
            self._errors.append(error)  # the database could not record anything: the leases expire
            return []
        except Exception as error:
            if len(items) == 1:
                self._set_aside(of(items[0]), error)
                return []
            log.warning("[PAYOUT] batch halved", error=type(error).__name__, number=len(items))
        parts = _parts(items, apart, of)
        return [step for part in parts for step in self.each(part, verb, of=of)]

    def answers(self, results: Iterable[tuple[Step, Answer | Exception]]) -> list[tuple[Step, Answer]]:
        """Return the answers; a step whose call raised is set aside."""
        answers: list[tuple[Step, Answer]] = []
        for step, result in results:
            if isinstance(result, Exception):
                self._set_aside(step.withdrawal_id, result)
            else:
                answers.append((step, result))
        return answers

    def raise_first_error(self) -> None:
        """Raise the first error, for the log and for Sentry."""
        if self._errors:
            raise self._errors[0]

    def _set_aside(self, withdrawal_id: UUID, error: Exception) -> None:
        self._errors.append(error)
        if not isinstance(error, Unavailable):
            postpone_after_error(withdrawal_id, error)


def _parts(items: Sequence[Item], apart: NotInBatch, of: Callable[[Item], UUID]) -> list[Sequence[Item]]:
    """Return the items that are apart alone, and the others together; two halves if none is apart."""
    first = [[item] for item in items if of(item) in apart.first]
    last = [[item] for item in items if of(item) in apart.last - apart.first]
    if not first and not last:
        half = len(items) // 2
        return [items[:half], items[half:]]
    together = [item for item in items if of(item) not in apart.first | apart.last]
    return [*first, together, *last]


def _ids(keys: Iterable[str]) -> list[UUID]:
    ids = {key: parse_id(key) for key in keys}
    for key in (key for key, withdrawal_id in ids.items() if withdrawal_id is None):
        log.error("[PAYOUT] message without a valid id", key=key[:50])
    return [withdrawal_id for withdrawal_id in ids.values() if withdrawal_id]
