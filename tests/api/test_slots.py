"""Slots: never more than there are, in the order of arrival, and first to those who have begun."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from api.slots import Slots
from sandbox.processes import wait_until

SECONDS = 10.0


def test_never_more_threads_have_a_slot_than_there_are_slots() -> None:
    slots = Slots(3)
    inside = [0]
    most = [0]
    changing = threading.Lock()

    def count(step: int) -> None:
        with changing:
            inside[0] += step
            most[0] = max(most[0], inside[0])

    def work(_: int) -> None:
        with slots:
            count(1)
            time.sleep(0.0005)
            count(-1)
            slots.release()
            slots.acquire_again()
            count(1)
            count(-1)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(400)))
    assert most[0] == 3
    assert [slots.acquire(blocking=False) for _ in range(4)] == [True] * 3 + [False]


def test_a_slot_goes_to_who_came_first_and_before_them_to_who_returns() -> None:
    slots = Slots(1)
    slots.acquire()
    order: list[str] = []

    def wait(name: str, *, again: bool = False) -> threading.Thread:
        def run() -> None:
            if again:
                slots.acquire_again()
            else:
                slots.acquire()
            order.append(name)
            slots.release()

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: len(slots._waiting) == len(started) + 1, SECONDS)
        return thread

    started: list[threading.Thread] = []
    for name in ("first", "second", "third"):
        started.append(wait(name))
    started.append(wait("returns", again=True))
    slots.release()
    for thread in started:
        thread.join(SECONDS)
    assert order == ["returns", "first", "second", "third"]


def test_an_error_inside_gives_the_slot_back() -> None:
    slots = Slots(1)
    for _ in range(3):
        try:
            with slots:
                raise RuntimeError
        except RuntimeError:
            pass
    assert slots.acquire(blocking=False)
