"""One withdrawal: its whole story, why it waits, and what can be done about it."""

from typing import Any
from uuid import UUID

from flask import abort, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.admin import door, records
from api.admin.acts import ACTS, Act, Given, Seen
from api.admin.page import DO, Page, back_to, does, given, opens
from api.admin.tasks import in_flower
from shared import utr
from shared.db import transaction
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.explaining import explain
from shared.ids import parse_id
from shared.models import PayoutAttempt
from shared.roles import Permission, Role
from shared.settings import settings
from shared.states import LIVE, PaidVia, for_operators
from shared.withdrawals import find, resolving

MAX_UTR = 60


class OneWithdrawal(Page):
    """`/admin/withdrawal/<id>/`."""

    title, endpoint_name, in_menu = "Withdrawal", "withdrawal", False

    @opens("/<uuid:withdrawal_id>/", Role.VIEWER)
    def index(self, withdrawal_id: UUID) -> Any:
        """The story."""
        return self._told(withdrawal_id)

    @opens("/<uuid:withdrawal_id>/upi-id/", Permission.WITHDRAWALS, methods=("POST",))
    def unmasked(self, withdrawal_id: UUID) -> Any:
        """The story with the whole UPI id. Who looked is written down first."""
        records.write("unmask", subject=withdrawal_id)
        return self._told(withdrawal_id, unmasked=True)

    @opens("/<uuid:withdrawal_id>/<word>/", Role.OPERATOR, methods=("GET", "POST"), asks_code=does)
    def act(self, withdrawal_id: UUID, word: str) -> Any:
        """Ask for a reason; say what will happen; do it. Three steps at one address."""
        act = ACTS.get(word)
        if act is None:
            raise NotFound("Not found", "There is no such action", code="no_such_action")
        if not door.me().role.may(act.role):
            abort(403)
        step = request.form.get("step", "")
        if request.method != "POST":
            return self._form(withdrawal_id, act)
        try:
            filled = _filled(act)
            if step == DO:
                done = _done(withdrawal_id, act, filled)
                return back_to("withdrawal.index", done, withdrawal_id=withdrawal_id)
            return self._form(withdrawal_id, act, confirm=filled)
        except PayoutsError as error:
            # What was typed stays; the row stands there as it is now.
            fault = f"{error.error}: {error.details}. Nothing was done."
            return self._form(withdrawal_id, act, fault=fault), error.http_status

    def _form(
        self, withdrawal_id: UUID, act: Act, *, confirm: Given | None = None, fault: str | None = None
    ) -> Any:
        with transaction() as session:
            seen = look(session, withdrawal_id, version=confirm.version if confirm else None)
            cannot = act.cannot(seen)
            page = self.render(
                "confirm.html" if confirm and not cannot else "act.html",
                title=act.title,
                act=act,
                seen=seen,
                cannot=cannot,
                tells=[] if cannot else act.tells(seen),
                confirm=confirm,
                fault=fault,
                typed=request.form,
                ways=[(str(way), way.label) for way in utr.FORMS],
            )
        return (page, 409) if cannot and not fault else page

    def _told(self, withdrawal_id: UUID, *, unmasked: bool = False) -> Any:
        with transaction() as session:
            seen = look(session, withdrawal_id)
            story = explain(session, withdrawal_id)
            role, flower = door.me().role, settings().flower_url
            acts = [act for act in ACTS.values() if role.may(act.role) and act.cannot(seen) is None]
            return self.render(
                "withdrawal.html",
                title="Withdrawal",
                seen=seen,
                withdrawal=seen.withdrawal,
                why=seen.withdrawal.failure_reason or for_operators(seen.withdrawal.status_reason),
                story=story,
                tasks=in_flower(flower, withdrawal_id, story) if flower else None,
                acts=acts,
                unmasked=unmasked,
                may_act=role.may(Role.OPERATOR),
            )


def look(session: Session, withdrawal_id: UUID, *, version: int | None = None) -> Seen:
    """What stands there now; a `version` must still be the row's. Raises NotFound, Stale."""
    withdrawal = find(session, withdrawal_id, version=version)
    live = select(PayoutAttempt).where(
        PayoutAttempt.withdrawal_id == withdrawal_id, PayoutAttempt.state.in_(LIVE)
    )
    proposal = resolving.waiting(session, withdrawal_id)
    return Seen(session, withdrawal, session.scalar(live), proposal, door.actor())


def _filled(act: Act) -> Given:
    version = request.form.get("version", "")
    if not version.isdecimal() or len(version) > 18:
        raise BadRequest("Incomplete form", "Load the page anew", code="no_version")
    proposal = parse_id(request.form.get("proposal", ""))
    if act.word in ("approve", "reject") and proposal is None:
        raise BadRequest("Incomplete form", "Load the page anew", code="no_proposal")
    payment = _payment() if act.wants_payment else {"utr": ""}
    reason = given("reason", required=f"{act.asks.partition(':')[0]} is required")
    return Given(reason=reason, version=int(version), actor=door.actor(), proposal=proposal, **payment)


def _payment() -> dict[str, str]:
    """What is told of a payment, looked at before somebody is asked whether to. Raises BadRequest."""
    asked = {"utr": "The UTR is required", "paid_via": "How it was paid is required"}
    asked["paid_at"] = "When it was paid is required"
    told = {name: given(name, longest=MAX_UTR, required=words) for name, words in asked.items()}
    if told["paid_via"] not in utr.FORMS:
        raise BadRequest(
            "Invalid way of payment", f"It is one of {', '.join(utr.FORMS)}", code="invalid_paid_via"
        )
    told["utr"] = utr.clean(told["utr"], PaidVia(told["paid_via"]))
    utr.moment(told["paid_at"])
    return told


def _done(withdrawal_id: UUID, act: Act, filled: Given) -> str:
    about = {"version": filled.version, "utr": filled.utr or None, "proposal": filled.proposal}
    about |= {"paid_via": filled.paid_via or None, "paid_at": filled.paid_at or None}
    before = {name: str(value) for name, value in about.items() if value is not None}
    with records.kept(act.word, subject=withdrawal_id, reason=filled.reason, **before) as after:
        told = act.does(withdrawal_id, filled)
        after["result"] = told
        return told
