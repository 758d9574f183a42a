"""The real system, twice: one that all may share, and fresh ones to break."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sandbox.stack import Stack
from tests.e2e.system import System

# Every wait that the defaults count in minutes, in seconds; what fits together still does.
QUICK = {
    "CANCEL_WINDOW_SECONDS": "0",
    "SWEEP_SECONDS": "0.5",
    "RESEND_SECONDS": "1,2,3",
    "POLL_SECONDS": "1",
    "LOOKUP_SECONDS": "1",
    "LEASE_SECONDS": "4",  # more than a call may take
    "RAZORPAYX_READ_SECONDS": "2",
    "RAZORPAYX_CONNECT_SECONDS": "1",
    "THROTTLE_SECONDS": "0.5",
    "RETRY_SECONDS": "1",
    "MAX_ATTEMPTS": "3",
}
SPEED = 5.0  # a payout is processed in 0.3 s


def _started(api_workers: int = 1) -> System:
    stack = Stack(QUICK, api_workers=api_workers, provider_speed=SPEED, flower=False)
    stack.start()
    return System(stack)


@pytest.fixture(scope="session")
def shared() -> Iterator[System]:
    """For tests that break nothing: each uses users of its own."""
    system = _started(api_workers=2)
    try:
        yield system
        system.check()
    finally:
        system.stack.stop()


@pytest.fixture(scope="session")
def ahead(request: pytest.FixtureRequest) -> Iterator["_Ahead"]:
    users = [item for item in request.session.items if "fresh" in getattr(item, "fixturenames", ())]
    starting = _Ahead(len(users))
    yield starting
    starting.end()


@pytest.fixture
def fresh(ahead: "_Ahead") -> Iterator[System]:
    """A system of the test's own, to kill and to stop. When it has been mended every promise must hold."""
    system = ahead.take()
    try:
        yield system
        system.check()
    finally:
        ahead.stop(system)


class _Ahead:
    """Starts the next test's system while a test waits for its own: a start takes longer than most tests."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self._thread = ThreadPoolExecutor(1)
        self._next: Future[System] | None = self._begin()

    def take(self) -> System:
        assert self._next, "more systems were asked for than tests were collected"
        system, self._next = self._next.result(), None
        self._next = self._begin()
        return system

    def stop(self, system: System) -> None:
        self._thread.submit(system.stack.stop)

    def end(self) -> None:
        if self._next:
            self.stop(self._next.result())
        self._thread.shutdown(wait=True)

    def _begin(self) -> Future[System] | None:
        if not self._left:
            return None
        self._left -= 1
        return self._thread.submit(_started)
