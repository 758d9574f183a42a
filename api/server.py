"""The application that granian serves, with limits on what slow callers can occupy.

granian gives each request a thread, and a thread that reads a body waits as long as the sender likes. So
there are more threads than working slots: a request that waits for its body, or sends a large response,
gives its working slot back meanwhile. Threads that only wait are cheap.

    working    at most API_THREADS requests; they share the database's connections
    transfer   at most API_BODIES request bodies or large responses. Unknown callers cannot take all of them:
               half for webhooks (provider_webhooks.py), an eighth for sign-ins (sessions.py), a quarter for
               responses

granian itself limits the time for a request's headers. `connections.py` limits the total time.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from api.app import create_app
from api.batches import MAX_BODY_FACTOR
from api.connections import ConnectionWatch
from api.slots import Slots
from shared.errors import Unavailable
from shared.settings import Settings
from shared.settings import settings as process_settings

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

# A response up to this size is handed over in one piece: granian sends it, and no thread waits.
MAX_BUFFERED_BYTES = 256 * 1024


def create() -> Wsgi:
    """Create the application for granian, and start the connection watch. Raises SettingsError."""
    settings = process_settings()
    ConnectionWatch(settings.api_port, settings.api_request_seconds).start()
    return RequestSlots(settings).wrap(create_app(settings))


class RequestSlots:
    """The limits of requests in work and of bodies in transfer."""

    def __init__(self, settings: Settings) -> None:
        self._working = Slots(settings.api_threads)
        self._transfer = Slots(settings.api_bodies)
        self._responses = Slots(max(1, settings.api_bodies // 4))
        # One byte more than allowed, so that a body that is too large is recognised.
        self._max_bytes = max(MAX_BODY_FACTOR * settings.max_body_bytes, settings.max_webhook_bytes) + 1

    def wrap(self, application: Wsgi) -> Wsgi:
        """Wrap the application so that it runs within the limits."""

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            """Answer one request; a large response keeps its slots until it is sent."""
            environ["wsgi.input"] = RequestBody(environ["wsgi.input"], self._max_bytes, self)
            status_and_headers: list[Any] = []
            with self._working:
                response = application(environ, lambda *args: status_and_headers.extend(args))
                if _is_short(status_and_headers[1]):
                    start_response(*status_and_headers[:2])
                    return _buffered(response)
            slots = self._acquire_for_response()
            if slots is None:
                _close(response)
                return _refuse(start_response)
            start_response(*status_and_headers[:2])
            return StreamedResponse(response, slots)

        return serve

    def _acquire_for_response(self) -> ExitStack | None:
        """Acquire the slots for a large response; None if there is none free."""
        with ExitStack() as slots:
            for kind in (self._responses, self._transfer):
                if not kind.acquire(blocking=False):
                    return None
                slots.callback(kind.release)
            return slots.pop_all()

    @contextmanager
    def yield_slot(self) -> Iterator[None]:
        """Give the working slot back while this request waits. Raises Unavailable if too many wait."""
        if not self._transfer.acquire(blocking=False):
            raise _too_many_slow_requests()
        self._working.release()
        try:
            yield
        finally:
            self._transfer.release()
            self._working.acquire_again()


class RequestBody(io.RawIOBase):
    """A request's body, read completely on first use: so never before the caller is authenticated."""

    def __init__(self, stream: Any, max_bytes: int, slots: RequestSlots) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._slots = slots
        self._body: io.BytesIO | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes. Raises Unavailable if too many bodies are in transfer."""
        return self._received().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes. Raises Unavailable if too many bodies are in transfer."""
        return self._received().read(size)

    def readall(self) -> bytes:
        """Read the rest. Raises Unavailable if too many bodies are in transfer."""
        return self._received().read()

    def _received(self) -> io.BytesIO:
        if self._body is None:
            with self._slots.yield_slot():
                self._body = io.BytesIO(self._stream.read(self._max_bytes))
        return self._body


class StreamedResponse:
    """A large response. It keeps its slots until granian closes it, which granian always does."""

    def __init__(self, response: Iterable[bytes], slots: ExitStack) -> None:
        self._response = response
        self._slots = slots

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        """Release the slots; further calls do nothing."""
        with self._slots:
            _close(self._response)


def _is_short(headers: list[tuple[str, str]]) -> bool:
    length = next((value for name, value in headers if name.lower() == "content-length"), "")
    return length.isdecimal() and int(length) <= MAX_BUFFERED_BYTES


def _buffered(response: Iterable[bytes]) -> list[bytes]:
    try:
        return [b"".join(response)]
    finally:
        _close(response)


def _too_many_slow_requests() -> Unavailable:
    return Unavailable(
        "Service unavailable", "Too many slow requests at once. Retry later", code="too_many_bodies"
    )


def _refuse(start_response: Any) -> list[bytes]:
    error = _too_many_slow_requests()
    body = {"success": False, "error": error.error, "details": error.details, "code": error.code}
    headers = [("Content-Type", "application/json"), ("Retry-After", str(error.retry_after))]
    start_response("503 Service Unavailable", headers)
    return [json.dumps(body).encode()]


def _close(response: Iterable[bytes]) -> None:
    with suppress(AttributeError):
        response.close()  # type: ignore[attr-defined]
