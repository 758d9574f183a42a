"""Proposals about operators, keys and endpoints: made on other pages, decided and claimed here."""

from typing import Any
from uuid import UUID

from flask import Response, abort, make_response, url_for

from api.admin import sessions
from api.admin.confirm import AuditDetails, Change, Preview, confirm, refused
from api.admin.forms import CLAIM, CONFIRM, REJECT, AdminDecisionForm
from api.admin.page import Page, is_last_step, route
from shared import proposals
from shared.db.transactions import transaction
from shared.errors import PayoutsError
from shared.models import AdminProposal
from shared.people import invitations
from shared.proposals import Kind, ProposalResult
from shared.roles import REQUIRED_ROLE, Role

TITLES = {CONFIRM: "Confirm proposal", REJECT: "Reject proposal", CLAIM: "Show secret"}


COPY_NOW = "Copy the secret now"


class Proposals(Page):
    """`/admin/proposals/`."""

    title = "Proposals"
    endpoint_name = "proposals"
    needs = Role.FINANCE

    @route("/", Role.FINANCE)
    def index(self) -> Any:
        """The open proposals, oldest first, and the latest decided ones."""
        with transaction() as session:
            return self.render(
                "proposals.html",
                title=self.title,
                open_proposals=proposals.open_proposals(session),
                decided=proposals.recently_decided(session),
                kinds=proposals.KINDS,
                needs=REQUIRED_ROLE,
                actor=sessions.actor(),
            )

    @route("/<uuid:proposal_id>/", Role.FINANCE, methods=("POST",), needs_code=is_last_step)
    def decide(self, proposal_id: UUID) -> Any:
        """Confirm what was shown, reject it, or show its secret once."""
        form = AdminDecisionForm.submitted()
        try:
            form.require_valid()
            with transaction() as session:
                proposal = proposals.find(session, proposal_id)
            kind = proposals.KINDS[proposal.kind]
            if not sessions.signed_in().role.may(REQUIRED_ROLE[kind.needs]):
                abort(403)
            if form.action.data == CONFIRM:
                proposals.require_no_file(kind)
            return confirm(self, _decision(self, form, proposal, kind))
        except PayoutsError as error:
            return refused(error, url_for("proposals.index"))


def _decision(page: Page, form: AdminDecisionForm, proposal: AdminProposal, kind: Kind) -> Change:
    action = form.action.data
    back = url_for("proposals.index")

    def preview() -> Preview:
        return Preview(
            title=f"{TITLES[action]}: {kind.title.lower()}",
            button=TITLES[action],
            effects=[
                *kind.describe(proposal.subject, proposal.wanted),
                f"{proposal.proposed_by} proposed this: {proposal.reason}",
            ],
            hidden={"word": action, "shown": proposal.fingerprint},
        )

    def run(_: str, __: AuditDetails) -> Any:
        if action == REJECT:
            proposals.reject(proposal.id, actor=sessions.actor())
            return "Rejected. Nothing has changed."
        if action == CLAIM:
            return _secret_page(page, COPY_NOW, *proposals.claim(proposal.id, actor=sessions.actor()))
        result = proposals.confirm(proposal.id, shown=form.fingerprint.data, actor=sessions.actor())
        return _result(page, kind, result)

    return Change(
        action=f"proposal_{action}",
        subject=proposal.id,
        reason="claimed" if action == CLAIM else None,
        back=back,
        run=run,
        preview=preview,
        audit_details={"kind": proposal.kind, "of": proposal.subject},
    )


def proposal_change(
    page: Page,
    kind: Kind,
    subject: str,
    wanted: dict[str, Any],
    *,
    title: str,
    hidden: dict[str, Any],
    back: str,
) -> Change:
    """A proposal from another page. If it needs no second admin, it is carried out at once."""

    def preview() -> Preview:
        with transaction() as session:
            kind.current_state(session, subject, wanted)
            needs_two = proposals.needs_second_person(session, kind, subject, wanted)
        approval = "Another admin must confirm it." if needs_two else "It happens at once."
        effects = [*kind.describe(subject, wanted), approval]
        return Preview(title=title, effects=effects, hidden=hidden)

    def run(reason: str, details: AuditDetails) -> ProposalResult:
        result = proposals.propose(kind, subject, wanted, reason=reason, actor=sessions.actor())
        details |= {"wanted": wanted, "proposal": str(result.proposal.id)}
        return result

    return Change(
        action=f"propose_{kind.code}",
        subject=subject,
        back=back,
        run=run,
        show=lambda result: _result(page, kind, result),
        preview=preview,
    )


def _result(page: Page, kind: Kind, result: ProposalResult) -> str | Response:
    """The message about the result, or a page that shows a link or a secret once."""
    proposal = result.proposal
    if proposal.outcome is None:
        return "Proposed. Another admin must confirm it under Proposals before it expires."
    if result.is_mailed:
        return f"Done. We mailed the invitation to {proposal.subject}."
    if result.invitation is not None:
        description = f"Give this link to {proposal.subject} and no one else. It works once"
        return _secret_page(page, "Invitation", description, invitations.url_of(result.invitation.id))
    if kind.reveal is not None and proposal.alone:
        return _secret_page(page, COPY_NOW, *proposals.claim(proposal.id, actor=sessions.actor()))
    if kind.reveal is not None:
        return f"Confirmed. {proposal.proposed_by} can show the secret once."
    return "Done."


def _secret_page(page: Page, title: str, description: str, secret: str) -> Response:
    return make_response(page.render("secret.html", title=title, description=description, secret=secret))
