"""What waits for a second admin: proposed on other pages, confirmed, rejected and claimed here."""

from typing import Any
from uuid import UUID

from flask import abort, request

from api.admin import door, records
from api.admin.page import DO, Page, back_to, does, given, opens
from shared import invitations, proposals
from shared.db import transaction
from shared.errors import PayoutsError
from shared.proposals import Confirmed, Kind
from shared.roles import NEEDS, Role

CONFIRM, REJECT, CLAIM = "confirm", "reject", "claim"
TITLES = {CONFIRM: "Confirm", REJECT: "Reject", CLAIM: "Show the secret"}


class Proposals(Page):
    """`/admin/proposals/`."""

    title, endpoint_name, needs = "Proposals", "proposals", Role.FINANCE

    @opens("/", Role.FINANCE)
    def index(self) -> Any:
        """What waits, oldest first, and what was decided lately."""
        with transaction() as session:
            return self.render(
                "admin_proposals.html",
                title=self.title,
                waiting=proposals.waiting(session),
                decided=proposals.decided_lately(session),
                kinds=proposals.KINDS,
                needs=NEEDS,
                actor=door.actor(),
            )

    @opens("/<uuid:proposal_id>/", Role.FINANCE, methods=("POST",), asks_code=does)
    def decide(self, proposal_id: UUID) -> Any:
        """Confirm it as it was shown, reject it, or see its secret once."""
        word = request.form.get("word", "")
        if word not in TITLES:
            abort(404)
        try:
            with transaction() as session:
                made = proposals.find(session, proposal_id)
            kind = proposals.KINDS[made.kind]
            if not door.me().role.may(NEEDS[kind.needs]):
                abort(403)
            if word == CONFIRM:
                proposals.must_need_no_file(kind)
            if request.form.get("step") != DO:
                tells = [
                    *kind.tells(made.subject, made.wanted),
                    f"{made.proposed_by} proposed it: {made.reason}",
                ]
                fields = {"word": word, "shown": made.fingerprint}
                if word == CLAIM:
                    fields["reason"] = "claimed"
                title = f"{TITLES[word]}: {kind.title.lower()}?"
                return self.render(
                    "ruling.html", title=title, tells=tells, fields=fields, back=self.get_url(".index")
                )
            reason = given("reason", required="A reason is required")
            about = {"kind": made.kind, "of": made.subject}
            with records.kept(f"proposal_{word}", subject=proposal_id, reason=reason, **about):
                return self._done(word, kind, proposal_id)
        except PayoutsError as error:
            words = f"{error.error}: {error.details}. Nothing was done."
            return back_to("proposals.index", words, "refused")

    def _done(self, word: str, kind: Kind, proposal_id: UUID) -> Any:
        if word == REJECT:
            proposals.reject(proposal_id, actor=door.actor())
            return back_to("proposals.index", "Rejected. Nothing has changed.")
        if word == CLAIM:
            words, secret = proposals.claim(proposal_id, actor=door.actor())
            return self.render("secret.html", title="Copy it now", words=words, secret=secret)
        done = proposals.confirm(proposal_id, shown=given("shown", longest=64), actor=door.actor())
        return shown(self, kind, done, back="proposals.index")


def proposed(page: Page, kind: Kind, subject: str, wanted: dict[str, Any], reason: str, *, back: str) -> Any:
    """Propose it from another page; what is answered. Raises PayoutsError."""
    with records.kept(f"propose_{kind.word}", subject=subject, reason=reason) as after:
        after |= {"wanted": wanted}
        done = proposals.propose(kind, subject, wanted, reason=reason, actor=door.actor())
        after["proposal"] = str(done.proposal.id)
    return shown(page, kind, done, back=back)


def shown(page: Page, kind: Kind, done: Confirmed, *, back: str) -> Any:
    """What came of it: it waits, it is done, or there is something to see once."""
    made = done.proposal
    if made.outcome is None:
        return back_to(back, "Proposed. Another person confirms it under Proposals, until it expires.")
    if done.is_mailed:
        return back_to(back, f"Done. The invitation was mailed to {made.subject}.")
    if done.invitation is not None:
        words = f"Give this link to {made.subject} and nobody else; it works once"
        link = invitations.link(done.invitation.id)
        return page.render("secret.html", title="Invitation", words=words, secret=link)
    if kind.shows is not None and made.alone:
        words, secret = proposals.claim(made.id, actor=door.actor())
        return page.render("secret.html", title="Copy it now", words=words, secret=secret)
    if kind.shows is not None:
        return back_to(back, f"Confirmed. {made.proposed_by} can see the secret now, once.")
    return back_to(back, "Done.")
