"""One decision for several withdrawals: each is done or refused for itself, with its result beside it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import abort, request, url_for

from api.admin import door, records
from api.admin.acts import ACTS, Act, Given, Seen
from api.admin.page import DO, Page, does, given, gone_back, inside, opens
from api.admin.withdrawal import look
from shared.db import transaction
from shared.errors import BadRequest, PayoutsError
from shared.ids import parse_id
from shared.roles import Role

MOST = 50
BULK: tuple[Act, ...] = tuple(act for act in ACTS.values() if act.in_bulk)


@dataclass(frozen=True, slots=True)
class Picked:
    """A withdrawal that was chosen, in the version in which it was seen."""

    id: UUID
    version: int

    def __str__(self) -> str:
        return f"{self.id}:{self.version}"


class Bulk(Page):
    """`/admin/bulk/`: what the list's checkboxes lead to."""

    title, endpoint_name, in_menu = "Several withdrawals", "bulk", False

    @opens("/", Role.OPERATOR, methods=("POST",), asks_code=does)
    def index(self) -> Any:
        """First say what will happen to which, then do it."""
        act = ACTS.get(request.form.get("word", ""))
        if act is None or not act.in_bulk:
            raise BadRequest("Incomplete form", "Load the list anew", code="bad_word")
        if not door.me().role.may(act.role):
            abort(403)
        back, picked = _back(), _picked()
        if not picked:
            return gone_back(back, f"Nothing was done: pick some withdrawals, then {act.title}.", "refused")
        if request.form.get("step") == DO:
            reason = given("reason", required="A reason is required")
            results = [(one, *_done(one, act, reason)) for one in picked]
            title = f"{act.title}: results"
            return self.render("bulk_done.html", title=title, act=act, results=results, back=back)
        return self._ask(act, picked, back)

    def _ask(self, act: Act, picked: list[Picked], back: str) -> Any:
        with transaction() as session:
            seen = [(one, _looked(session, one)) for one in picked]
            can = [(one, row) for one, row in seen if isinstance(row, Seen) and act.cannot(row) is None]
            cannot = [
                (one, act.cannot(row) if isinstance(row, Seen) else row)
                for one, row in seen
                if not isinstance(row, Seen) or act.cannot(row) is not None
            ]
            paise = sum(row.withdrawal.amount_paise for _, row in can)
            return self.render(
                "bulk.html",
                title=f"{act.title}: {len(can)}",
                act=act,
                can=can,
                cannot=cannot,
                paise=paise,
                back=back,
            )


def _back() -> str:
    """The list as it was filtered when these were picked."""
    given_one = request.form.get("back")
    return inside(given_one) if given_one else url_for("withdrawals.index")


def _picked() -> list[Picked]:
    """What was chosen, once each. Raises BadRequest."""
    found = {}
    for text in request.form.getlist("pick"):
        word, _, version = text.partition(":")
        withdrawal_id = parse_id(word)
        if withdrawal_id is None or not version.isdecimal() or len(version) > 18:
            raise BadRequest("Incomplete form", "Load the list anew", code="bad_pick")
        found[withdrawal_id] = Picked(withdrawal_id, int(version))
    if len(found) > MOST:
        raise BadRequest("Too many", f"At most {MOST} at once", code="too_many")
    return list(found.values())


def _looked(session: Any, one: Picked) -> Seen | str:
    try:
        return look(session, one.id, version=one.version)
    except PayoutsError as error:
        return f"{error.error}: {error.details}"


def _done(one: Picked, act: Act, reason: str) -> tuple[bool, str]:
    filled = Given(reason, "", one.version, door.actor())
    try:
        with records.kept(act.word, subject=one.id, reason=reason, version=one.version, bulk=True):
            return True, act.does(one.id, filled)
    except PayoutsError as error:
        return False, f"{error.error}: {error.details}"
