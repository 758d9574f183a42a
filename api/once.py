"""`Idempotency-Key`: a request that is sent again gets the first answer again."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Response, g, jsonify, make_response, request

from api.problems import told
from api.schemas import Body
from shared import idempotency
from shared.errors import BadRequest, Passed, Unavailable

HEADER, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
MAX_KEY = 255

Answer = tuple[dict[str, Any], int] | tuple[dict[str, Any], int, dict[str, str]]
View = Callable[[str | None, str], Answer]


def once(operation: str, given: Body, view: View) -> Answer | Response:
    """Answer by `view(key, fingerprint)`, once for each key of this caller. Without the header: each time.

    A refusal is an answer too, and is kept as well; "not now" (503) and "not any more" (Passed) are none, and
    the next try is a new one.
    Raises BadRequest (a key that cannot be one), Reused, StillRunning, and what the view raises.
    """
    key = given_key()
    fingerprint = idempotency.fingerprint(operation, given.model_dump())
    if key is None:
        return view(None, fingerprint)
    who = {"actor": g.actor, "key": key}
    first = idempotency.begin(**who, operation=operation, fingerprint=fingerprint)
    if first is not None:
        return _again(first)
    try:
        response = make_response(view(key, fingerprint))
    except BaseException as error:
        if isinstance(error, BadRequest) and not isinstance(error, Passed):
            _keep(who, told(error))
        else:
            with suppress(Unavailable):
                idempotency.give_up(**who)
        raise
    _keep(who, response)
    return response


def replayed(is_one: bool) -> dict[str, str]:
    """The header for what was done before under its key, however that was found out."""
    return {REPLAYED: "true"} if is_one else {}


def given_key() -> str | None:
    """The caller's own key for this request, if any. Raises BadRequest for one that cannot be one."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY or not all(33 <= ord(letter) <= 126 for letter in key):
        raise BadRequest(
            "Invalid Idempotency-Key",
            f"Idempotency-Key has 1 to {MAX_KEY} visible ASCII characters; a UUID is best",
            code="invalid_idempotency_key",
        )
    return key


def _keep(who: dict[str, str], response: Response) -> None:
    # What was done is done: without the database it is told all the same, and told again from the rows.
    with suppress(Unavailable):
        idempotency.finish(**who, http_status=response.status_code, answer=response.get_json())


def _again(first: idempotency.Answered) -> Response:
    response = jsonify(first.answer)
    response.status_code = first.http_status
    response.headers.update(replayed(True))
    return response
