"""Signal handling for a program whose children must not outlive it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(SystemExit):
    """SIGTERM as an exception, so that every `finally` runs."""


def raise_terminated(number: int, _frame: object) -> None:
    raise Terminated(128 + number)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGTERM and SIGINT: a second Ctrl-C must not leave half of the parts running."""
    if not in_main_thread():
        yield
        return
    former_handlers = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
