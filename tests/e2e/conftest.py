"""The real system: one that tests share, and fresh ones to break."""

from collections.abc import Iterator

import pytest

from sandbox.stack import Stack
from tests.e2e.system import System

# Waits of seconds where the defaults are minutes, in the same proportions.
QUICK = {
    "CANCEL_WINDOW_SECONDS": "0.05",
    "SWEEP_SECONDS": "0.5",
    "RESEND_SECONDS": "1,2,3",
    "POLL_SECONDS": "1",
    "LOOKUP_SECONDS": "1",
    "LEASE_SECONDS": "4",  # longer than a call may take
    "RAZORPAYX_READ_SECONDS": "2",
    "RAZORPAYX_CONNECT_SECONDS": "1",
    "THROTTLE_SECONDS": "0.5",
    "PACE_HOLD_SECONDS": "0.5",
    "RETRY_SECONDS": "1",
    "MAX_ATTEMPTS": "3",
    "PAYOUTS_PER_SECOND": "1000",
    "PROBE_SECONDS": "0.5",
    "NOTIFY_SECONDS": "0.5",
    "NOTIFY_RETRY_SECONDS": "0.5,1",
    "NOTIFY_ANSWER_SECONDS": "1",
}
SPEED = 5.0  # a payout is processed in 0.3 s


def _started(api_workers: int = 1, **settings: str) -> System:
    stack = Stack(QUICK | settings, api_workers=api_workers, provider_speed=SPEED, flower=False)
    stack.start()
    return System(stack)


@pytest.fixture(scope="package")
def shared() -> Iterator[System]:
    """A system for tests that break nothing; each test uses its own users."""
    # Refusals of our settings are simulated for single payouts, and must not pause the others.
    system = _started(api_workers=2, AUTO_PAUSE="off")
    try:
        yield system
        system.check()
    finally:
        system.stack.stop()


@pytest.fixture(scope="package")
def reusable() -> Iterator[list[System]]:
    systems: list[System] = []
    yield systems
    for system in systems:
        system.stack.stop()


@pytest.fixture
def fresh(request: pytest.FixtureRequest, reusable: list[System]) -> Iterator[System]:
    """A system to kill and stop; at the end of the test every promise must hold.

    A start takes seconds of both cores, so after a passing test the system is restored and used again: every
    part runs, the broker is empty, the provider is reset. After a failing test it is discarded.
    """
    system = reusable.pop() if reusable else _started()
    failed_before = request.session.testsfailed
    try:
        yield system
        system.check()
        assert request.session.testsfailed == failed_before, "discarded"
        system.renew()
    except BaseException:
        system.stack.stop()
        if request.session.testsfailed == failed_before:
            raise
    else:
        reusable.append(system)
