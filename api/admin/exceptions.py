"""Exception records: what does not add up, who looks after it, and how it was resolved."""

from datetime import UTC, datetime
from typing import Any

from flask import abort, request

from api import parameters
from api.admin import door, records
from api.admin.page import Page, back_to, given, number, opens
from shared import exception_records
from shared.clock import from_iso
from shared.db import transaction
from shared.errors import BadRequest, PayoutsError
from shared.models import ExceptionRecord
from shared.roles import NEEDS, Permission, Role
from shared.severities import Severity, of_kind

PAGE_ROWS = 50


class Exceptions(Page):
    """`/admin/exceptions/`."""

    title, endpoint_name = "Exceptions", "exceptions"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """What is open, the worst first, and of these what waits longest; closed ones too when asked for."""
        with_closed, kind = bool(request.args.get("closed")), request.args.get("kind") or None
        if kind and "\x00" in kind:
            raise BadRequest("Invalid kind", "It is not valid text", code="bad_filter")
        severity = _severity()
        with transaction() as session:
            rows = exception_records.listing(
                session,
                with_closed=with_closed,
                kind=kind,
                severity=severity,
                after=_after(),
                limit=PAGE_ROWS + 1,
            )
            kinds = exception_records.kinds(session, with_closed=with_closed)
        shown, now = rows[:PAGE_ROWS], datetime.now(UTC)
        last = shown[-1] if len(rows) > PAGE_ROWS else None
        return self.render(
            "exceptions.html",
            title="Exception records",
            found=[(one, of_kind(one.kind), (now - one.opened_at).total_seconds()) for one in shown],
            next=parameters.cursor(*exception_records.position_of(last)) if last else None,
            with_closed=with_closed,
            kind=kind,
            kinds=kinds,
            severity=severity,
            severities=list(Severity),
        )

    @opens("/<int:record_id>/", Role.VIEWER)
    def record(self, record_id: int) -> Any:
        """One, with both sides."""
        with transaction() as session:
            record = session.get(ExceptionRecord, number(record_id))
        if record is None:
            abort(404)
        return self.render(
            "exception.html",
            title=f"#{record.id} {record.kind}",
            record=record,
            severity=of_kind(record.kind),
            seen=exception_records.as_seen(record),
            may_act=door.me().role.may(NEEDS[Permission.EXCEPTIONS]) and record.resolved_at is None,
        )

    @opens("/<int:record_id>/take/", Permission.EXCEPTIONS, methods=("POST",))
    def take(self, record_id: int) -> Any:
        """Look after it."""
        return self._done(record_id, "exception_take", None, "It is yours.")

    @opens("/<int:record_id>/close/", Permission.EXCEPTIONS, methods=("POST",))
    def close(self, record_id: int) -> Any:
        """Write how it was resolved. Moves no money."""
        try:
            resolution = given("resolution", required="Say how it was resolved")
        except PayoutsError as error:
            return back_to("exceptions.record", f"{error.error}.", "refused", record_id=record_id)
        return self._done(record_id, "exception_close", resolution, "It is closed.")

    def _done(self, record_id: int, word: str, resolution: str | None, told: str) -> Any:
        actor = door.actor()
        try:
            seen = given("seen")
            with (
                records.kept(word, subject=f"#{record_id}", reason=resolution, before=seen),
                transaction() as session,
            ):
                if resolution is None:
                    exception_records.take(session, number(record_id), owner=actor, seen=seen)
                else:
                    exception_records.close(
                        session, number(record_id), resolution=resolution, actor=actor, seen=seen
                    )
        except PayoutsError as error:
            words = f"{error.error}: {error.details}. Nothing was done."
            return back_to("exceptions.record", words, "refused", record_id=record_id)
        return back_to("exceptions.record", told, record_id=record_id)


def _severity() -> Severity | None:
    given = request.args.get("severity") or None
    if given is None:
        return None
    try:
        return Severity(given)
    except ValueError:
        raise BadRequest(
            "Invalid severity", f"It is one of: {', '.join(Severity)}", code="bad_filter"
        ) from None


def _after() -> exception_records.Position | None:
    decoded = parameters.given_cursor()
    if decoded is None:
        return None
    try:
        rank, moment, record_id = decoded.split("|")
        return number(int(rank)), from_iso(moment), number(int(record_id))
    except (ValueError, OverflowError):
        raise parameters.bad_cursor() from None
