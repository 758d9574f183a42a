"""What granian serves: the application, with a bound on what a slow caller can hold.

granian gives each request a thread, and a thread that reads a body waits as long as its sender likes. So
there are more threads than requests that are worked on: whoever waits for a body, or sends a large answer,
gives the place at work back meanwhile. Threads that only wait are cheap.

    working    at most API_THREADS requests; they share the database's connections
    moving     at most API_BODIES bodies that arrive, or large answers that leave. Strangers do not get them
               all: half for webhooks (provider.py), an eighth for sign-ins (door.py), a quarter for answers

granian bounds by itself how long a request's head may take. `connections.py` ends what takes too long in all.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import BoundedSemaphore
from typing import Any

from api.app import create_app
from api.batches import BODY_TIMES
from api.connections import Watch
from shared.errors import Unavailable
from shared.settings import Settings
from shared.settings import settings as of_this_process

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

# An answer up to this size leaves in one piece: granian's own side sends it, and no thread waits.
WHOLE_ANSWER_BYTES = 256 * 1024


def create() -> Wsgi:
    """The application for granian, with its watch over connections. Raises SettingsError."""
    settings = of_this_process()
    Watch(settings.api_port, settings.api_request_seconds).start()
    return Places(settings).around(create_app(settings))


class Places:
    """How many requests are worked on, and how many bodies are on their way, at once."""

    def __init__(self, settings: Settings) -> None:
        self._working = BoundedSemaphore(settings.api_threads)
        self._moving = BoundedSemaphore(settings.api_bodies)
        self._leaving = BoundedSemaphore(max(1, settings.api_bodies // 4))
        # One byte more than anybody may send: so that what is too large is seen to be.
        self._most_bytes = max(BODY_TIMES * settings.max_body_bytes, settings.max_webhook_bytes) + 1

    def around(self, application: Wsgi) -> Wsgi:
        """The application, called for as many requests at once as there are places."""

        def served(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ["wsgi.input"] = Arriving(environ["wsgi.input"], self._most_bytes, self)
            head: list[Any] = []
            with self._working:
                answer = application(environ, lambda *told: head.extend(told))
                if _is_short(head[1]):
                    start_response(*head[:2])
                    return _whole(answer)
            held = self._of_leaving()
            if held is None:
                _close(answer)
                return _refused(start_response)
            start_response(*head[:2])
            return Leaving(answer, held)

        return served

    def _of_leaving(self) -> ExitStack | None:
        """A place for a large answer, to be given back; None when there is none."""
        with ExitStack() as held:
            for places in (self._leaving, self._moving):
                if not places.acquire(blocking=False):
                    return None
                held.callback(places.release)
            return held.pop_all()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let another request be worked on while this one waits. Raises Unavailable when too many wait."""
        if not self._moving.acquire(blocking=False):
            raise _too_many()
        self._working.release()
        try:
            yield
        finally:
            self._moving.release()
            self._working.acquire()


class Arriving(io.RawIOBase):
    """A request's body. It is read whole when somebody first asks for it: never before a caller is known."""

    def __init__(self, wire: Any, most_bytes: int, places: Places) -> None:
        self._wire, self._most_bytes, self._places = wire, most_bytes, places
        self._body: io.BytesIO | None = None

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes. Raises Unavailable when too many bodies are on their way."""
        return self._arrived().readinto(buffer)

    def readall(self) -> bytes:
        """All that is left. Raises Unavailable when too many bodies are on their way."""
        return self._arrived().read()

    def _arrived(self) -> io.BytesIO:
        if self._body is None:
            with self._places.waiting():
                self._body = io.BytesIO(self._wire.read(self._most_bytes))
        return self._body


class Leaving:
    """A large answer on its way. It holds its place until it is closed, which granian does in any case."""

    def __init__(self, answer: Iterable[bytes], held: ExitStack) -> None:
        self._answer, self._held = answer, held

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """Give the place back; once, however often it is asked."""
        with self._held:
            _close(self._answer)


def _is_short(headers: list[tuple[str, str]]) -> bool:
    length = next((value for name, value in headers if name.lower() == "content-length"), "")
    return length.isdecimal() and int(length) <= WHOLE_ANSWER_BYTES


def _whole(answer: Iterable[bytes]) -> list[bytes]:
    try:
        return [b"".join(answer)]
    finally:
        _close(answer)


def _too_many() -> Unavailable:
    return Unavailable("Service unavailable", "Too many slow requests at once", code="too_many_bodies")


def _refused(start_response: Any) -> list[bytes]:
    why = _too_many()
    told = {"success": False, "error": why.error, "details": why.details, "code": why.code}
    headers = [("Content-Type", "application/json"), ("Retry-After", str(why.retry_after))]
    start_response("503 Service Unavailable", headers)
    return [json.dumps(told).encode()]


def _close(answer: Iterable[bytes]) -> None:
    with suppress(AttributeError):
        answer.close()  # type: ignore[attr-defined]
