"""Pauses: which payouts may go, and the switches that say so."""

from collections.abc import Mapping
from typing import Any

from flask import request

from api.admin import door, records
from api.admin.page import DO, Page, back_to, does, given, opens
from shared import switches, watching, withdrawals
from shared.db import transaction
from shared.errors import BadRequest, PayoutsError
from shared.models import Switch
from shared.roles import Permission, Role
from shared.upi import is_handle
from shared.withdrawals import pausing

PAUSE, RESUME = "pause", "resume"


def _resumes() -> bool:
    """To let payouts go on needs a code; to stop them needs none."""
    return does() and request.form.get("word") == RESUME


class Switches(Page):
    """`/admin/switches/`."""

    title, endpoint_name = "Pauses", "switches"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """Every switch, with who turned it and why."""
        return self._shown({})

    @opens("/turn/", Permission.SWITCHES, methods=("POST",), asks_code=_resumes)
    def turn(self) -> Any:
        """Say what a pause or its end would do; then do it."""
        try:
            name, word = _name(), request.form.get("word", "")
            reason = given("reason", required="A reason is required")
            if word not in (PAUSE, RESUME):
                raise BadRequest("Incomplete form", "Load the page anew", code="bad_word")
            if request.form.get("step") != DO:
                return self._ask(name, word, reason)
            seen = given("seen")
            with records.kept(word, subject=name, reason=reason, before=seen):
                told = _turn(name, word, reason, seen)
        except PayoutsError as error:
            return self._shown(request.form, f"{error.error}: {error.details}. Nothing was done."), 400
        return back_to("switches.index", told)

    def _shown(self, typed: Mapping[str, str], fault: str | None = None) -> str:
        with transaction() as session:
            found = switches.listing(session)
            return self.render("switches.html", title=self.title, found=found, typed=typed, fault=fault)

    def _ask(self, name: str, word: str, reason: str) -> Any:
        with transaction() as session:
            switch = session.get(Switch, name)
            return self.render(
                "turn.html",
                title=f"{word.capitalize()} {name}?",
                name=name,
                word=word,
                reason=reason,
                switch=switch,
                seen=switches.as_seen(switch),
                is_all=name == switches.PAYOUTS,
                money=watching.money(session),
                touched=pausing.would_hold_back(session, name)
                if word == PAUSE
                else pausing.held_back_by(session, name),
            )


def _turn(name: str, word: str, reason: str, seen: str) -> str:
    if word == PAUSE:
        withdrawals.pause(name, reason=reason, actor=door.actor(), seen=seen)
        return f"{name} is paused. What was sent is still followed."
    withdrawals.resume(name, reason=reason, actor=door.actor(), seen=seen)
    return f"{name} goes on."


def _name() -> str:
    """The switch that is meant: by its name, or by a UPI handle. Raises BadRequest."""
    handle = given("handle", longest=65).removeprefix("@")
    name = switches.of_handle(f"@{handle}") if handle else given("name", longest=100)
    is_known = name in (switches.PAYOUTS, switches.NETWORK)
    if not is_known and not (
        name.startswith(switches.HANDLE) and is_handle(name.removeprefix(switches.HANDLE))
    ):
        raise BadRequest("No such switch", "A UPI handle is like okaxis", code="bad_switch")
    return name
