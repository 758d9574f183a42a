"""Why PostgreSQL or Redis cannot be used, in a line for operators: what the driver said, without a secret.

Some causes pass by themselves and are waited for. Others last until somebody changes a setting or a grant: a
process that starts names them and ends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import psycopg
import redis

from shared.errors import PayoutsError, SettingsError, Unavailable
from shared.sessions import Unfit
from shared.settings import settings

MOST_LETTERS = 300
# libpq does not hand on the server's SQLSTATE while it connects, so its English words are looked for. What a
# server says in another language is shown all the same, and waited for.
LASTING = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|(role|database) \".*\" does not exist|not permitted to log in|not currently accepting connections"
    r"|permission denied|(does not support|no) SSL|SSL connection is required|certificate verify failed"
    r"|server certificate for|certificate file .* does not exist|could not (load|read) .*(certificate|key)"
    r"|unrecognized configuration parameter|invalid value for parameter|invalid \S+ value"
    r"|channel binding required"
    r"|authentication method requirement|unsupported frontend protocol|invalid (URI|connection)"
)
SQLSTATES = ("28", "3D", "42501")  # authentication, no such database, a missing right
OF_THE_SERVER = (*SQLSTATES, "08", "25006", "53", "57", "58")  # what other states say is about a row
OF_REDIS = re.compile(r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|DB index|no permissions|No such file")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why; and whether it lasts until somebody changes something."""

    words: str
    lasts: bool


def of(error: BaseException) -> Cause | None:
    """Why the database or Redis could not be used, by an error or what it was raised from; None of others."""
    for one in _chain(error):
        if isinstance(one, psycopg.Error):
            return _of_database(one)
        if isinstance(one, redis.RedisError):
            return _of_redis(one)
    return None


def words_of(error: BaseException) -> str | None:
    """The words alone."""
    cause = of(error)
    return cause.words if cause else None


def sentence(error: PayoutsError) -> str:
    """What a person at a shell reads of it: of a database or a Redis that is away also why."""
    said = error.error if error.details == error.error else f"{error.error}: {error.details}"
    why = words_of(error) if isinstance(error, Unavailable) and error.code != "database_busy" else None
    return said + (f" ({why})" if why else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what SQLAlchemy wrapped in it, and what it was raised from."""
    left: BaseException | None = error
    while left is not None:
        yield left
        inner = getattr(left, "orig", None)
        left = inner if isinstance(inner, BaseException) else left.__cause__


def _of_database(error: psycopg.Error) -> Cause:
    state = error.sqlstate or ""
    if state and not state.startswith(OF_THE_SERVER):
        # It speaks of a row, and may quote a UPI id.
        return Cause(f"SQLSTATE {state}", lasts=False)
    each = [line.partition(": ")[2] for line in str(error).splitlines() if line.startswith("- host: ")]
    lasts = isinstance(error, Unfit) or state.startswith(SQLSTATES)
    lasts = lasts or all(LASTING.search(one) for one in each or [str(error)])
    return Cause(_line(str(error)), lasts)


def _of_redis(error: redis.RedisError) -> Cause:
    said = str(error)
    if "already authenticated" in said or "Authentication required" in said:
        return Cause("Redis asks for a password", lasts=True)
    is_ours = isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
    return Cause(_line(said), is_ours or bool(OF_REDIS.search(said)))


def _line(said: str) -> str:
    first = next((line.strip() for line in said.splitlines() if line.strip()), "no reason was given")
    for secret in _secrets():
        first = first.replace(secret, "…")
    return re.sub(r"\s+", " ", first)[:MOST_LETTERS].rstrip(".")


def _secrets() -> list[str]:
    try:
        urls = (settings().database_url, settings().redis_url)
    except SettingsError:
        return []  # then nobody connected with them
    written = [urlsplit(url.get_secret_value()).password or "" for url in urls]
    return [secret for one in written for secret in {one, unquote(one)} if secret]
