"""The bytes of a request's body."""

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge


def read(http: Request) -> bytes:
    """Return the whole body. Raises HTTP 413 if it is too large, ClientDisconnected if it is truncated.

    werkzeug's stream does the same in pieces, for forms that are not in memory; ours is (server.py).
    """
    length = http.content_length
    if length is None:
        return http.get_data(cache=False)
    if length > (http.max_content_length or length):
        raise RequestEntityTooLarge
    body: bytes = http.environ["wsgi.input"].read(length)
    if len(body) < length:
        raise ClientDisconnected
    return body
