"""The URLs that apps registered for webhooks: add one, rotate its secret, remove it."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict, NotFound
from shared.ids import parse_id
from shared.models import Delivery, Endpoint, WithdrawalEvent
from shared.net import addresses
from shared.notifications import event_cursor
from shared.notifications.webhooks.signing import derive_secret
from shared.people import exception_records

ENDPOINT_FAILING = "webhooks_out"  # the kind of its exception record; the subject is the endpoint's id
RESOLVE_SECONDS = 5.0


def add(session: Session, url: str, *, actor: str, allow_private: bool = False) -> tuple[Endpoint, str]:
    """Register `url` for the changes from now on; returns the endpoint and its secret.

    Raises BadRequest (the URL is not allowed), Conflict (it is registered already), SettingsError.
    """
    _check_url(url, allow_private)
    # Read the last event before the row is created: an event in between must not be missed.
    last = event_cursor.last_id(session, WithdrawalEvent)
    new = insert(Endpoint).values(url=url, allow_private=allow_private, created_by=actor, followed_to=last)
    new = new.on_conflict_do_nothing(index_elements=["url"], index_where=Endpoint.removed_at.is_(None))
    endpoint = session.scalar(new.returning(Endpoint))
    if endpoint is None:
        raise _already_exists(url)
    return endpoint, derive_secret(endpoint.id, endpoint.generation)


def validate(session: Session, url: str, *, allow_private: bool) -> None:
    """Check that `url` can be added now. Raises BadRequest, Conflict (it is registered already)."""
    _check_url(url, allow_private)
    existing = select(Endpoint.id).where(Endpoint.url == url, Endpoint.removed_at.is_(None))
    if session.scalar(existing) is not None:
        raise _already_exists(url)


def rotate(session: Session, id_or_url: str, *, actor: str, grace_hours: float) -> tuple[Endpoint, str]:
    """Give it a new secret; the old one also signs for `grace_hours`.

    Raises NotFound, Conflict, SettingsError.
    """
    endpoint = find(session, id_or_url, lock=True)
    endpoint.generation += 1
    endpoint.rotated_at = func.now()
    endpoint.rotated_by = actor
    endpoint.previous_until = func.now() + timedelta(hours=grace_hours)
    session.flush()
    return endpoint, derive_secret(endpoint.id, endpoint.generation)


def remove(session: Session, id_or_url: str, *, actor: str) -> Endpoint:
    """Send it nothing more; its waiting deliveries fail. Raises NotFound, Conflict (removed already)."""
    endpoint = find(session, id_or_url, lock=True)
    endpoint.removed_at = func.now()
    endpoint.removed_by = actor
    session.flush()
    waiting = update(Delivery).where(Delivery.endpoint_id == endpoint.id, Delivery.state == "waiting")
    failed = {
        "state": "failed",
        "due_at": None,
        "leased_until": None,
        "last_error": "the endpoint was removed",
    }
    session.execute(waiting.values(failed))
    exception_records.close_all(
        session,
        kind=ENDPOINT_FAILING,
        subject=str(endpoint.id),
        resolution="the endpoint was removed",
        actor=actor,
    )
    return endpoint


def list_endpoints(session: Session, *, with_removed: bool = False) -> list[Endpoint]:
    """The endpoints, oldest first."""
    query = select(Endpoint).order_by(Endpoint.created_at)
    return list(session.scalars(query if with_removed else query.where(Endpoint.removed_at.is_(None))))


def find(session: Session, id_or_url: str, *, lock: bool = False) -> Endpoint:
    """The endpoint with this id or URL. Raises NotFound, Conflict (it was removed)."""
    key: UUID | None = parse_id(id_or_url)
    query = select(Endpoint).where(Endpoint.id == key if key else Endpoint.url == id_or_url)
    query = query.order_by(Endpoint.removed_at.desc().nulls_first()).limit(1)
    endpoint = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if endpoint is None:
        raise NotFound(
            "No such endpoint", f"No endpoint has the id or URL {id_or_url[:200]}", code="endpoint_not_found"
        )
    if endpoint.removed_at is not None:
        raise Conflict(
            "Endpoint already removed", f"{endpoint.url} was removed earlier", code="endpoint_removed"
        )
    return endpoint


def _already_exists(url: str) -> Conflict:
    details = f"{url} is already registered; `payouts endpoints rotate` gives it a new secret"
    return Conflict("Endpoint already exists", details, code="endpoint_exists")


def _check_url(url: str, allow_private: bool) -> None:
    """What can be checked now; each send checks again. A name that does not resolve yet is accepted."""
    target = addresses.parse_url(url, allow_private=allow_private)
    try:
        addresses.resolve(target, allow_private=allow_private, seconds=RESOLVE_SECONDS)
    except addresses.NotPublic as error:
        raise BadRequest(
            "Not a public address", f"{error}; see --allow-private", code="private_address"
        ) from None
    except OSError:
        return
