"""The application class: APIFlask without what no view of ours uses. Each request would pay for it."""

import json
from collections.abc import Callable
from typing import Any

from apiflask import APIFlask
from flask import Request, Response
from flask.ctx import RequestContext
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, Rule


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
        return Response(f"{text}\n", content_type=self.mimetype)


class Application(APIFlask):
    """An APIFlask application of plain functions, nearly all of whose routes have no parameters."""

    session_interface = NoSessions()
    json_provider_class = Json

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known_routes: dict[tuple[str, str], Rule] = {}

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, and Flask would look at each for each request."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return None if the request's route is known: then Flask does not match it again."""
        if request is not None:
            rule = self._known_routes.get((request.method, request.environ["PATH_INFO"]))
            if rule is not None:
                request.url_rule, request.view_args = rule, {}
                return None
        return super().create_url_adapter(request)

    def request_context(self, environ: dict[str, Any]) -> RequestContext:
        """Return the context of a request, which keeps its route for the next one."""
        return _Context(self, environ)

    def keep_route(self, request: Request) -> None:
        """Keep the route that was found for this method and path. There are few: it has no parameters."""
        rule = request.url_rule
        if rule is not None and not rule.arguments:
            self._known_routes[request.method, request.environ["PATH_INFO"]] = rule


class _Context(RequestContext):
    app: Application

    def match_request(self) -> None:
        super().match_request()
        self.app.keep_route(self.request)
