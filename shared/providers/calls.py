"""Calls to the provider that run side by side, so that a batch takes as long as its slowest call.

The threads belong to the process and are reused: a new one for each call would cost more than the call.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, TypeGuard, TypeVar

from shared.providers.answers import Answer
from shared.providers.port import ProviderClient
from shared.providers.steps import Poll, Step

CALLS_AT_ONCE = 24  # in this process: at 0.3 s each, 80 a second, above the rate limit of a provider
GATHER_SECONDS = 0.015  # answers that arrive within this time are recorded together
POLLS_TOGETHER = 5  # so many polls may cost fewer calls together

T = TypeVar("T")
Result = tuple[Step, Answer | Exception]


class _Threads(ThreadPoolExecutor):
    """The process's threads for calls, and how many calls they have been given."""

    def __init__(self) -> None:
        super().__init__(CALLS_AT_ONCE, thread_name_prefix="call")
        self._given = 0
        self._ended = threading.Condition()
        self._turn = threading.Lock()

    def give(self, call: Callable[[Any], T], about: Any) -> Future[T]:
        """Begin a call as soon as a thread is free."""
        with self._ended:
            self._given += 1
        future = self.submit(call, about)
        future.add_done_callback(self._end)
        return future

    @contextmanager
    def room(self) -> Iterator[None]:
        """Wait until there is room, and give no other thread its turn in this block."""
        with self._turn:
            with self._ended:
                self._ended.wait_for(lambda: self._given < 2 * CALLS_AT_ONCE)
            yield

    def _end(self, _: Future[Any]) -> None:
        with self._ended:
            self._given -= 1
            self._ended.notify()


def room() -> AbstractContextManager[None]:
    """Wait until calls can begin soon: fewer than CALLS_AT_ONCE wait for a thread.

    Claim and begin calls in this block, which one batch enters at a time. A withdrawal that is claimed sooner
    waits under a lease, and its user can no longer cancel it.
    """
    return _threads().room()


class Calls:
    """The calls of one batch."""

    def __init__(self, client: ProviderClient) -> None:
        self._client = client
        self._alone: list[Step] = []
        self._running: set[Future[tuple[list[Result], list[Step]]]] = set()

    def add(self, steps: Iterable[Step]) -> None:
        """Begin these steps' calls. One step alone is called in this thread, by `results`."""
        steps = list(steps)
        if len(steps) == 1 and not self._running:
            self._alone += steps
            return
        polls = [step for step in steps if _may_be_listed(step)]
        if len(polls) >= POLLS_TOGETHER:
            self._running.add(_threads().give(self._poll_many, polls))
            steps = [step for step in steps if not _may_be_listed(step)]
        self._perform(steps)

    def results(self) -> Iterator[list[Result]]:
        """Yield the answers as they arrive, those that arrive together at once. `add` may be called between.

        An exception takes the place of the answer if the call raised it.
        """
        while self._alone or self._running:
            if self._alone:
                yield self._call(self._alone.pop())[0]
                continue
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            if len(done) < len(self._running):
                done, _ = wait(self._running, timeout=GATHER_SECONDS)
            self._running -= done
            ended = [future.result() for future in done]
            for _, left in ended:
                self._perform(left)
            yield [result for results, _ in ended for result in results]

    def _perform(self, steps: Iterable[Step]) -> None:
        self._running |= {_threads().give(self._call, step) for step in steps}

    def _call(self, step: Step) -> tuple[list[Result], list[Step]]:
        try:
            return [(step, self._client.perform(step))], []
        except Exception as error:
            return [(step, error)], []

    def _poll_many(self, polls: Sequence[Poll]) -> tuple[list[Result], list[Step]]:
        """Return the answers of the list, and the polls that it does not answer."""
        try:
            answers = self._client.poll_many(polls)
        except Exception as error:
            return [(poll, error) for poll in polls], []
        return list(answers.items()), [poll for poll in polls if poll not in answers]


def _may_be_listed(step: Step) -> TypeGuard[Poll]:
    """False for a query of a hint: what changed a moment ago, a list may not show yet."""
    return isinstance(step, Poll) and step.hint_count is None and step.created_at is not None


@cache
def _threads() -> _Threads:
    return _Threads()


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
