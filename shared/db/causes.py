"""Why PostgreSQL or Redis cannot be used, in one line for operators: the driver's message without secrets.

Some causes are temporary: processes wait for them to end. Others last until an operator changes a setting or
a grant: a process that starts names them and exits.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import psycopg
import redis

from shared.db.connections import UnsuitableDatabase
from shared.errors import PayoutsError, SettingsError, Unavailable
from shared.settings import settings

MAX_CHARACTERS = 300
# While it connects, libpq does not pass on the server's SQLSTATE, so these match its English messages. A
# message in another language is shown too, but treated as temporary.
LASTING_MESSAGES = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|(role|database) \".*\" does not exist|not permitted to log in|not currently accepting connections"
    r"|permission denied|(does not support|no) SSL|SSL connection is required|certificate verify failed"
    r"|server certificate for|certificate file .* does not exist|could not (load|read) .*(certificate|key)"
    r"|unrecognized configuration parameter|invalid value for parameter|invalid \S+ value"
    r"|channel binding required"
    r"|authentication method requirement|unsupported frontend protocol|invalid (URI|connection)"
)
LASTING_STATES = ("28", "3D", "42501")  # authentication, no such database, a missing privilege
SERVER_STATES = (*LASTING_STATES, "08", "25006", "53", "57", "58")  # messages of other states may quote a row
LASTING_REDIS_MESSAGES = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|DB index|no permissions|No such file"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause, and whether it lasts until an operator changes something."""

    message: str
    is_lasting: bool


def cause_of(error: BaseException) -> Cause | None:
    """Return the cause in an error or the errors it was raised from; None if neither PostgreSQL nor Redis."""
    for link in _chain(error):
        if isinstance(link, psycopg.Error):
            return _postgres_cause(link)
        if isinstance(link, redis.RedisError):
            return _redis_cause(link)
    return None


def message_of(error: BaseException) -> str | None:
    """Return the cause's message, or None."""
    cause = cause_of(error)
    return cause.message if cause else None


def describe(error: PayoutsError) -> str:
    """Return an error as the shell prints it, with the cause if PostgreSQL or Redis is unavailable."""
    text = error.error if error.details == error.error else f"{error.error}: {error.details}"
    cause = message_of(error) if isinstance(error, Unavailable) and error.code != "database_busy" else None
    return text + (f" ({cause})" if cause else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, what SQLAlchemy wrapped in it, and what it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        inner = getattr(link, "orig", None)
        link = inner if isinstance(inner, BaseException) else link.__cause__


def _postgres_cause(error: psycopg.Error) -> Cause:
    state = error.sqlstate or ""
    if state and not state.startswith(SERVER_STATES):
        # The message is about a row, and may quote a UPI id.
        return Cause(f"SQLSTATE {state}", is_lasting=False)
    messages = [line.partition(": ")[2] for line in str(error).splitlines() if line.startswith("- host: ")]
    is_lasting = isinstance(error, UnsuitableDatabase) or state.startswith(LASTING_STATES)
    is_lasting = is_lasting or all(LASTING_MESSAGES.search(message) for message in messages or [str(error)])
    return Cause(_first_line(str(error)), is_lasting)


def _redis_cause(error: redis.RedisError) -> Cause:
    message = str(error)
    if "already authenticated" in message or "Authentication required" in message:
        return Cause("Redis requires a password", is_lasting=True)
    is_lasting = isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
    return Cause(_first_line(message), is_lasting or bool(LASTING_REDIS_MESSAGES.search(message)))


def _first_line(message: str) -> str:
    line = next((line.strip() for line in message.splitlines() if line.strip()), "no reason was given")
    for secret in _secrets():
        line = line.replace(secret, "…")
    return re.sub(r"\s+", " ", line)[:MAX_CHARACTERS].rstrip(".")


def _secrets() -> list[str]:
    try:
        urls = (settings().database_url, settings().redis_url)
    except SettingsError:
        return []  # then nothing connected with them
    passwords = [urlsplit(url.get_secret_value()).password or "" for url in urls]
    return [secret for password in passwords for secret in {password, unquote(password)} if secret]
