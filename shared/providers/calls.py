"""Calls to the provider that run side by side, so that a batch takes as long as its slowest call.

The threads belong to the process and are reused: a new one for each call would cost more than the call.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache

from shared.providers.answers import Answer
from shared.providers.port import ProviderClient
from shared.providers.steps import Step

CALLS_AT_ONCE = 32  # in this process: 0.3 s each is a hundred a second, above any rate limit of a provider
GATHER_SECONDS = 0.005  # answers that arrive within this time are recorded together

Result = tuple[Step, Answer | Exception]


class Calls:
    """The calls of one batch."""

    def __init__(self, client: ProviderClient) -> None:
        self._client = client
        self._alone: list[Step] = []
        self._running: dict[Future[Answer], Step] = {}

    def add(self, steps: Iterable[Step]) -> None:
        """Begin these steps' calls. One step alone is called in this thread, by `results`."""
        steps = list(steps)
        if len(steps) == 1 and not self._running:
            self._alone += steps
            return
        for step in steps:
            self._running[_threads().submit(self._client.perform, step)] = step

    def results(self) -> Iterator[list[Result]]:
        """Yield the answers as they arrive, those that arrive together at once. `add` may be called between.

        An exception takes the place of the answer if `perform` raised it.
        """
        while self._alone or self._running:
            if self._alone:
                yield [self._call(self._alone.pop())]
                continue
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            if len(done) < len(self._running):
                done, _ = wait(self._running, timeout=GATHER_SECONDS)
            yield [_result(self._running.pop(future), future) for future in done]

    def _call(self, step: Step) -> Result:
        try:
            return step, self._client.perform(step)
        except Exception as error:
            return step, error


def _result(step: Step, future: Future[Answer]) -> Result:
    error = future.exception()
    if error is None:
        return step, future.result()
    if not isinstance(error, Exception):
        raise error
    return step, error


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call")


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
