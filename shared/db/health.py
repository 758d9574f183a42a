"""Database health, for load balancers and for starting processes."""

from typing import Literal

import structlog
from sqlalchemy import text

from shared.db import causes, engines
from shared.db.transactions import autocommit, map_db_errors
from shared.errors import Unavailable

State = Literal["ok", "full", "read_only", "unavailable"]

log = structlog.get_logger()


def check() -> State:
    """Query whether the database accepts writes now. Raises Unavailable."""
    if engines.was_full():
        return "full"
    with map_db_errors(), autocommit() as connection:
        is_read_only = connection.execute(text("SHOW transaction_read_only")).scalar() != "off"
    return "read_only" if is_read_only else "ok"


def state() -> State:
    """Return the same as `check`, with "unavailable" instead of raising."""
    try:
        return check()
    except Unavailable as error:
        log.warning("[DATABASE] unavailable", cause=causes.message_of(error))
        return "unavailable"
