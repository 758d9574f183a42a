"""Calls to the provider that run side by side, so that a batch takes as long as its slowest call.

The threads belong to the process and are reused: a new one for each call would cost more than the call.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache

from shared.providers.answers import Answer
from shared.providers.port import ProviderClient
from shared.providers.steps import Poll, Step

CALLS_AT_ONCE = 32  # in this process: 0.3 s each is a hundred a second, above any rate limit of a provider
GATHER_SECONDS = 0.005  # answers that arrive within this time are recorded together
POLLS_TOGETHER = 5  # so many polls may cost fewer calls together

Result = tuple[Step, Answer | Exception]


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
        polls = [step for step in steps if isinstance(step, Poll) and _may_be_listed(step)]
        if len(polls) >= POLLS_TOGETHER:
            self._running.add(_threads().submit(self._poll_many, polls))
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
        self._running |= {_threads().submit(self._call, step) for step in steps}

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


def _may_be_listed(step: Step) -> bool:
    """False for a query of a hint: what changed a moment ago, a list may not show yet."""
    return isinstance(step, Poll) and step.hint_count is None and step.created_at is not None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call")


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
