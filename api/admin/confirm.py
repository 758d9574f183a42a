"""A change in two steps: a page says what will happen, and asks for a reason; then the change is made.

    the form on a page  ->  confirm(): the confirmation page
    its answer          ->  confirm(), carry_out(), perform(): audit "asked", run, audit "done" or "refused"

The reason is typed either in the first form or on the confirmation page. A change that is refused raises
PayoutsError; its view shows the form again with what was typed, or goes back with a message (`refused`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Response

from api.admin import audit_writer
from api.admin.forms import ReasonForm
from api.admin.page import Page, is_last_step, redirect_to, refusal
from shared.errors import PayoutsError

AuditDetails = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the confirmation page says, as things are now."""

    title: str
    effects: Sequence[str]  # sentences
    hidden: dict[str, Any]  # what the last step needs; None is left out
    button: str = ""  # if it is not the title
    facts: dict[str, object] = field(default_factory=dict)  # by label


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that an operator asked for."""

    action: str  # in the audit log
    subject: object  # in the audit log
    back: str  # the address to return to
    run: Callable[[str, AuditDetails], Any]  # may add details to the entry "done"
    # Turns what `run` returned into a message, or into a Response that is shown once.
    show: Callable[[Any], Any] = lambda result: result
    preview: Callable[[], Preview] | None = None  # raises PayoutsError if the change is not possible
    reason: str | None = None  # None: the confirmation page asks for it
    audit_details: AuditDetails = field(default_factory=dict)


def confirm(page: Page, change: Change) -> Any:
    """The confirmation page, and at the last step the change. Raises PayoutsError if it is refused."""
    assert change.preview is not None, "what is confirmed is shown first"
    form = ReasonForm.submitted()
    is_confirmed = is_last_step()
    if is_confirmed and (change.reason is not None or form.validate()):
        return carry_out(change, change.reason or form.reason.data)
    preview = change.preview()
    shown = page.render(
        "confirm.html",
        title=preview.title,
        preview=preview,
        change=change,
        form=form,
    )
    return shown, 400 if is_confirmed else 200


def carry_out(change: Change, reason: str | None) -> Any:
    """Make the change, then go back with its message or show its page. Raises PayoutsError if refused."""
    shown = change.show(perform(change, reason))
    return redirect_to(change.back, shown) if isinstance(shown, str) else shown


def perform(change: Change, reason: str | None) -> Any:
    """Make the change between two entries in the audit log. Raises PayoutsError if it is refused."""
    about = {"subject": change.subject, "reason": reason, **change.audit_details}
    with audit_writer.audited(change.action, **about) as details:
        return change.run(reason or "", details)


def refused(error: PayoutsError, back: str) -> Response:
    """Return to a page with the reason why nothing was done."""
    return redirect_to(back, refusal(error), "refused")
