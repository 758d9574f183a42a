"""Exception records: what does not add up, who owns it, and how it was resolved."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import abort, url_for

from api import query_parameters
from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, carry_out, refused
from api.admin.forms import AssignForm, CloseForm
from api.admin.list_filters import ExceptionFilters
from api.admin.page import Page, refusal, route, row_id
from shared.clock import from_iso
from shared.db.transactions import transaction
from shared.errors import PayoutsError
from shared.models import ExceptionRecord
from shared.people import exception_records
from shared.people.severities import Severity, severity_of
from shared.roles import REQUIRED_ROLE, Permission, Role

PAGE_ROWS = 50


class Exceptions(Page):
    """`/admin/exceptions/`."""

    title = "Exceptions"
    endpoint_name = "exceptions"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """The open records, most severe first, then oldest first; closed ones on request."""
        form = ExceptionFilters.submitted()
        form.require_valid()
        with_closed = form.closed.data
        kind = form.kind.data or None
        severity = Severity(form.severity.data) if form.severity.data else None
        with transaction() as session:
            rows = exception_records.listing(
                session,
                with_closed=with_closed,
                kind=kind,
                severity=severity,
                after=_after(),
                limit=PAGE_ROWS + 1,
            )
            form.kind.suggestions = exception_records.kinds(session, with_closed=with_closed)
        shown = rows[:PAGE_ROWS]
        now = datetime.now(UTC)
        last = shown[-1] if len(rows) > PAGE_ROWS else None
        return self.render(
            "exceptions.html",
            title="Exception records",
            records=[
                (record, severity_of(record.kind), (now - record.opened_at).total_seconds())
                for record in shown
            ],
            next=query_parameters.encode_cursor(*exception_records.position_of(last)) if last else None,
            form=form,
        )

    @route("/<int:record_id>/", Role.VIEWER)
    def record(self, record_id: int) -> Any:
        """One record with both sides."""
        return self._show(record_id)

    @route("/<int:record_id>/take/", Permission.EXCEPTIONS, methods=("POST",))
    def take(self, record_id: int) -> Any:
        """Assign it to the operator who is signed in."""
        form = AssignForm.submitted()

        def assign(_: str, __: AuditDetails) -> str:
            with transaction() as session:
                exception_records.assign(
                    session, row_id(record_id), owner=sessions.actor(), version=form.version.data
                )
            return "Assigned to you."

        try:
            form.require_valid()
            return carry_out(_change("exception_take", record_id, form, assign), None)
        except PayoutsError as error:
            return refused(error, _url(record_id))

    @route("/<int:record_id>/close/", Permission.EXCEPTIONS, methods=("POST",))
    def close(self, record_id: int) -> Any:
        """Close it with how it was resolved. That moves no money."""
        form = CloseForm.submitted()

        def close(resolution: str, _: AuditDetails) -> str:
            with transaction() as session:
                exception_records.close(
                    session,
                    row_id(record_id),
                    resolution=resolution,
                    actor=sessions.actor(),
                    version=form.version.data,
                )
            return "Closed."

        try:
            form.require_valid()
            return carry_out(_change("exception_close", record_id, form, close), form.resolution.data)
        except PayoutsError as error:
            return self._show(record_id, form, error)

    def _show(self, record_id: int, form: CloseForm | None = None, error: PayoutsError | None = None) -> Any:
        with transaction() as session:
            record = session.get(ExceptionRecord, row_id(record_id))
        if record is None:
            abort(404)
        form = form or CloseForm()
        form.version.data = exception_records.version_of(record)
        may_act = (
            sessions.signed_in().role.may(REQUIRED_ROLE[Permission.EXCEPTIONS]) and record.resolved_at is None
        )
        page = self.render(
            "exception.html",
            title=f"#{record.id} {record.kind}",
            record=record,
            severity=severity_of(record.kind),
            form=form,
            fault=refusal(error) if error else None,
            may_act=may_act,
        )
        return page, error.http_status if error else 200


def _url(record_id: int) -> str:
    return url_for("exceptions.record", record_id=record_id)


def _change(action: str, record_id: int, form: AssignForm, run: Callable[[str, AuditDetails], str]) -> Change:
    return Change(
        action=action,
        subject=f"#{record_id}",
        back=_url(record_id),
        run=run,
        audit_details={"before": form.version.data},
    )


def _after() -> exception_records.Position | None:
    decoded = query_parameters.decoded_cursor()
    if decoded is None:
        return None
    try:
        rank, moment, record_id = decoded.split("|")
        return row_id(int(rank)), from_iso(moment), row_id(int(record_id))
    except (ValueError, OverflowError):
        raise query_parameters.invalid_cursor() from None
