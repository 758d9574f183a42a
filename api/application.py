"""The application class: APIFlask without what no view of ours uses, because each request would pay for it."""

import json
from collections.abc import Callable
from typing import Any

from apiflask import APIFlask
from flask import Request, Response
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SessionInterface


class NoSessions(SessionInterface):
    """The API has no sessions: each request brings its key. (The panel is an application of its own.)"""

    _session = NullSession()

    def open_session(self, app: Any, request: Request) -> NullSession:
        """Return the same session for all, which cannot be changed."""
        return self._session

    def is_null_session(self, obj: object) -> bool:
        """True: there is nothing to save."""
        return True


class Json(DefaultJSONProvider):
    """Flask's JSON, with an encoder that is made once. Fields stay in the contract's order."""

    sort_keys = False

    _encoder = json.JSONEncoder(default=DefaultJSONProvider.default, separators=(",", ":"))

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the response of one value."""
        text = self._encoder.encode(self._prepare_response_obj(args, kwargs))
        return self._app.response_class(f"{text}\n", content_type=self.mimetype)  # type: ignore[no-any-return]


class Application(APIFlask):
    """An APIFlask application of plain functions."""

    session_interface = NoSessions()
    json_provider_class = Json

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, and Flask would look at each for each request."""
        return func
