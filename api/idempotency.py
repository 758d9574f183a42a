"""`Idempotency-Key`: a repeated request gets the first response again."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Response, g, jsonify, make_response, request

from api.error_responses import to_response
from api.schemas import Body
from shared.access import idempotency
from shared.errors import BadRequest, RetryNow, Unavailable

KEY_HEADER = "Idempotency-Key"
KEY_IN_ENVIRON = "HTTP_IDEMPOTENCY_KEY"
REPLAYED_HEADER = "Idempotency-Replayed"
MAX_KEY_CHARACTERS = 255

ViewResponse = tuple[dict[str, Any], int] | tuple[dict[str, Any], int, dict[str, str]]
View = Callable[[str | None, str | None], ViewResponse]


def idempotent(operation: str, body: Body, view: View) -> ViewResponse | Response:
    """Run `view(key, fingerprint)` once for each key of this caller; without a key, run `view(None, None)`.

    A refusal is stored too. Temporary errors are not (503, RetryNow): a retry runs the view again.
    Raises BadRequest (an invalid key), KeyReused, StillRunning, and what the view raises.
    """
    key = request_key()
    if key is None:
        return view(None, None)
    fingerprint = idempotency.fingerprint(operation, body.model_dump())
    identity = {"actor": g.actor, "key": key}
    first = idempotency.begin(**identity, operation=operation, fingerprint=fingerprint)
    if first is not None:
        return _replay(first)
    try:
        response = make_response(view(key, fingerprint))
    except BaseException as error:
        if isinstance(error, BadRequest) and not isinstance(error, RetryNow):
            _store(identity, to_response(error))
        else:
            with suppress(Unavailable):
                idempotency.release(**identity)
        raise
    _store(identity, response)
    return response


def replay_headers(is_replay: bool) -> dict[str, str]:
    """Return the header that marks a repeated response."""
    return {REPLAYED_HEADER: "true"} if is_replay else {}


def request_key() -> str | None:
    """Return the request's Idempotency-Key, or None. Raises BadRequest if it is not valid."""
    key: str | None = request.environ.get(KEY_IN_ENVIRON)
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not all(33 <= ord(letter) <= 126 for letter in key):
        raise BadRequest(
            "Invalid Idempotency-Key",
            f"Use 1 to {MAX_KEY_CHARACTERS} visible ASCII characters, such as a UUID",
            code="invalid_idempotency_key",
        )
    return key


def _store(identity: dict[str, str], response: Response) -> None:
    # The request is done: respond even if its response cannot be stored. A repeat rebuilds it from the rows.
    with suppress(Unavailable):
        idempotency.store_response(**identity, http_status=response.status_code, body=response.get_json())


def _replay(first: idempotency.StoredResponse) -> Response:
    response = jsonify(first.body)
    response.status_code = first.http_status
    response.headers.update(replay_headers(True))
    return response
