"""Pauses: which payouts are sent, and the form that pauses and resumes them."""

from typing import Any

from flask import request, url_for
from markupsafe import Markup
from sqlalchemy.orm import Session

from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, Preview, confirm
from api.admin.forms import PAUSE, RESUME, PauseForm
from api.admin.page import Page, is_last_step, refusal, route
from api.admin.template_filters import counted, ist
from shared import withdrawals
from shared.db.transactions import transaction
from shared.errors import BadRequest, PayoutsError
from shared.models import CircuitBreaker
from shared.money import rupees_text
from shared.monitoring import watchdog
from shared.roles import Permission, Role
from shared.text.upi import is_handle
from shared.withdrawals import circuit_breakers, pauses


def _is_last_step_of_resume() -> bool:
    """Resuming payouts needs a fresh code; stopping them does not."""
    return is_last_step() and request.form.get("word") == RESUME


class Pauses(Page):
    """`/admin/switches/`."""

    title = "Pauses"
    endpoint_name = "switches"

    @route("/", Role.VIEWER)
    def index(self) -> Any:
        """Every circuit breaker, with who changed it and why."""
        return self._show(PauseForm())

    @route("/turn/", Permission.SWITCHES, methods=("POST",), needs_code=_is_last_step_of_resume)
    def turn(self) -> Any:
        """Pause or resume payouts."""
        form = PauseForm.submitted()
        try:
            form.require_valid()
            return confirm(self, _change(form, _breaker_name(form)))
        except PayoutsError as error:
            return self._show(form, error), error.http_status

    def _show(self, form: PauseForm, error: PayoutsError | None = None) -> str:
        with transaction() as session:
            breakers = circuit_breakers.all_breakers(session)
            form.name.choices = [breaker.name for breaker in breakers]
            fault = refusal(error) if error else None
            return self.render("pauses.html", title=self.title, breakers=breakers, form=form, fault=fault)


def _change(form: PauseForm, name: str) -> Change:
    action = form.action.data
    is_pause = action == PAUSE

    def preview() -> Preview:
        with transaction() as session:
            breaker = session.get(CircuitBreaker, name)
            effects = _pause_effects(session, name) if is_pause else _resume_effects(session, name)
            hidden = {"name": name, "word": action, "seen": circuit_breakers.version_of(breaker)}
            return Preview(
                title=f"{action.capitalize()} {name}",
                effects=[*effects, *_current_state(breaker)],
                hidden=hidden,
            )

    def run(reason: str, _: AuditDetails) -> str:
        version = form.version.data
        if is_pause:
            withdrawals.pause(name, reason=reason, actor=sessions.actor(), version=version)
            return f"{name} is paused. Sent payments are still followed up."
        withdrawals.resume(name, reason=reason, actor=sessions.actor(), version=version)
        return f"{name} is resumed."

    return Change(
        action=action,
        subject=name,
        reason=form.reason.data,
        back=url_for("switches.index"),
        run=run,
        preview=preview,
        audit_details={"before": form.version.data},
    )


def _pause_effects(session: Session, name: str) -> list[str]:
    total = pauses.total_affected(session, name)
    scope = "" if name == circuit_breakers.PAYOUTS else f" in the scope {name}"
    return [
        f"No payments{scope} are sent until an operator resumes them. "
        f"This affects {counted(total.number, 'withdrawal')} now, {rupees_text(total.paise)}.",
        "Sent payments are still followed up. Users keep their coins, and read that payments are delayed.",
    ]


def _resume_effects(session: Session, name: str) -> list[str]:
    total = pauses.total_waiting(session, name)
    funds = watchdog.funds(session)
    effects = [
        f"Waiting payments are sent now, at the usual rate: {counted(total.number, 'withdrawal')}, "
        f"{rupees_text(total.paise)}."
    ]
    if funds.available_paise is not None:
        balance = rupees_text(funds.available_paise)
        effects.append(Markup("The account holds {} (reported {} IST).").format(balance, ist(funds.seen_at)))
    return effects


def _current_state(breaker: CircuitBreaker | None) -> list[str]:
    if breaker is None:
        return []
    state = "active" if breaker.is_on else "paused"
    sentence = Markup("Current state: {} since {} IST, by {}: {}")
    return [sentence.format(state, ist(breaker.changed_at), breaker.actor, breaker.reason)]


def _breaker_name(form: PauseForm) -> str:
    """The name of the circuit breaker, from the scope or the UPI handle. Raises BadRequest."""
    handle = form.handle.data.removeprefix("@")
    name: str = circuit_breakers.handle_breaker(f"@{handle}") if handle else form.name.data.strip()
    is_known = name in (circuit_breakers.PAYOUTS, circuit_breakers.NETWORK)
    if not is_known and not (
        name.startswith(circuit_breakers.HANDLE) and is_handle(name.removeprefix(circuit_breakers.HANDLE))
    ):
        raise BadRequest("Unknown scope", "Enter a UPI handle such as okaxis", code="bad_switch")
    return name
