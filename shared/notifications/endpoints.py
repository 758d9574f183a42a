"""Where apps listen: added, given another secret, removed."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import exception_records
from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import parse_id
from shared.models import Delivery, Endpoint, WithdrawalEvent
from shared.notifications import addresses, positions
from shared.notifications.signing import secret_of

FAILING = "webhooks_out"  # the kind of its exception record; the subject is the endpoint's id
LOOK_UP_SECONDS = 5.0


def add(session: Session, url: str, *, actor: str, allow_private: bool = False) -> tuple[Endpoint, str]:
    """From now on changes are told to `url`; the endpoint and its secret.

    Raises BadRequest (such a URL is not accepted), Conflict (it is there already), SettingsError.
    """
    _check(url, allow_private)
    # First how far events were written, then the moment from which on changes are told.
    last = positions.last_id(session, WithdrawalEvent)
    made = insert(Endpoint).values(url=url, allow_private=allow_private, created_by=actor, followed_to=last)
    made = made.on_conflict_do_nothing(index_elements=["url"], index_where=Endpoint.removed_at.is_(None))
    endpoint = session.scalar(made.returning(Endpoint))
    if endpoint is None:
        raise _there_already(url)
    return endpoint, secret_of(endpoint.id, endpoint.generation)


def must_be_possible(session: Session, url: str, *, allow_private: bool) -> None:
    """Whether it can be added, as things stand. Raises BadRequest, Conflict (it is there already)."""
    _check(url, allow_private)
    there = select(Endpoint.id).where(Endpoint.url == url, Endpoint.removed_at.is_(None))
    if session.scalar(there) is not None:
        raise _there_already(url)


def rotate(session: Session, which: str, *, actor: str, grace_hours: float) -> tuple[Endpoint, str]:
    """Give it another secret; the one before signs too for so long.

    Raises NotFound, Conflict, SettingsError.
    """
    endpoint = find(session, which, lock=True)
    endpoint.generation += 1
    endpoint.rotated_at, endpoint.rotated_by = func.now(), actor
    endpoint.previous_until = func.now() + timedelta(hours=grace_hours)
    session.flush()
    return endpoint, secret_of(endpoint.id, endpoint.generation)


def remove(session: Session, which: str, *, actor: str) -> Endpoint:
    """Tell it nothing more; what waits counts as failed. Raises NotFound, Conflict when it was removed."""
    endpoint = find(session, which, lock=True)
    endpoint.removed_at, endpoint.removed_by = func.now(), actor
    session.flush()
    waiting = update(Delivery).where(Delivery.endpoint_id == endpoint.id, Delivery.state == "waiting")
    over = {"state": "failed", "due_at": None, "leased_until": None, "last_error": "the endpoint was removed"}
    session.execute(waiting.values(over))
    exception_records.close_all(
        session, kind=FAILING, subject=str(endpoint.id), resolution="the endpoint was removed", actor=actor
    )
    return endpoint


def listing(session: Session, *, with_removed: bool = False) -> list[Endpoint]:
    """The endpoints, oldest first."""
    query = select(Endpoint).order_by(Endpoint.created_at)
    return list(session.scalars(query if with_removed else query.where(Endpoint.removed_at.is_(None))))


def find(session: Session, which: str, *, lock: bool = False) -> Endpoint:
    """The endpoint with this id or URL. Raises NotFound, Conflict when it was removed."""
    key: UUID | None = parse_id(which)
    query = select(Endpoint).where(Endpoint.id == key if key else Endpoint.url == which)
    query = query.order_by(Endpoint.removed_at.desc().nulls_first()).limit(1)
    endpoint = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if endpoint is None:
        raise NotFound("No such endpoint", f"No endpoint is {which[:200]}", code="endpoint_not_found")
    if endpoint.removed_at is not None:
        raise Conflict("Removed already", f"{endpoint.url} was removed before", code="endpoint_removed")
    return endpoint


def _there_already(url: str) -> Conflict:
    words = f"{url} is an endpoint; `payouts endpoints rotate` shows a new secret"
    return Conflict("There already", words, code="endpoint_exists")


def _check(url: str, allow_private: bool) -> None:
    """What can be said now; each send looks anew. A name that is not known yet is no fault."""
    target = addresses.parse(url, allow_private=allow_private)
    try:
        addresses.look_up(target, allow_private=allow_private, seconds=LOOK_UP_SECONDS)
    except addresses.NotPublic as error:
        raise BadRequest(
            "Not a public address", f"{error}; see --allow-private", code="private_address"
        ) from None
    except OSError:
        return
