"""Approval of an import: one person proposes a file, a second confirms exactly the same file."""

import hashlib
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from shared.importing import ConfirmedLimits, FileSummary

MAX_NAME_CHARACTERS = 100


def private_copy(file: BinaryIO) -> tuple[BinaryIO, str]:
    """Return a copy that no one else can change, and its SHA-256: so what was confirmed is imported."""
    if not file.seekable():
        return file, ""  # Source reports what is wrong with it
    copy = tempfile.TemporaryFile()  # noqa: SIM115  open for the whole import
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        copy.write(chunk)
        digest.update(chunk)
    copy.flush()
    file.seek(0)
    return copy, digest.hexdigest()


def confirmed_limits(digest: str) -> "ConfirmedLimits | None":
    """Return the confirmed totals of this file; None if no second person is needed.

    Raises Conflict if one is needed and none has confirmed this file recently; Unavailable.
    """
    from shared import proposals
    from shared.db.transactions import transaction
    from shared.errors import Conflict
    from shared.importing import ConfirmedLimits
    from shared.proposals import kinds

    kind = proposals.KINDS[kinds.IMPORT]
    with transaction() as session:
        if not proposals.needs_second_person(session, kind, digest, {}):
            return None
        confirmation = proposals.latest_confirmation(session, kind, digest)
        if confirmation is None:
            details = "Propose this file with --propose. A second person then confirms it with --confirm"
            raise Conflict("A second person is needed", details, code="not_confirmed")
        return ConfirmedLimits(confirmation.wanted["rows"], confirmation.wanted["coins"])


def propose(digest: str, summary: "FileSummary", preview: dict[str, Any], reason: str, actor: str) -> str:
    """Propose all valid rows of this file; returns a message. Raises PayoutsError."""
    from shared import proposals
    from shared.proposals import kinds

    name = preview["name"][:MAX_NAME_CHARACTERS]
    wanted = preview | {"name": name, "rows": summary.rows, "coins": summary.coins}
    kind = proposals.KINDS[kinds.IMPORT]
    proposal = proposals.propose(
        kind, digest, wanted, reason=reason, actor=actor, paid_operators=summary.paid_operators
    ).proposal
    if proposal.outcome is not None:
        return "No second person is needed. Import it: payouts import FILE"
    totals = f"{summary.rows:,} rows, {summary.coins:,} coins, whatever the wallets hold now"
    return f"Proposed: {totals}. A second person checks the same file: payouts import FILE --confirm"


def confirm(digest: str, summary: "FileSummary", actor: str) -> str:
    """Confirm the open proposal for this file; returns a message. Raises PayoutsError."""
    from shared import proposals
    from shared.db.transactions import transaction
    from shared.errors import Conflict, NotFound
    from shared.proposals import kinds

    with transaction() as session:
        open_proposals = proposals.open_proposals(session)
    matching = [item for item in open_proposals if (item.kind, item.subject) == (kinds.IMPORT, digest)]
    if not matching:
        raise NotFound("No such proposal", "No one has proposed exactly this file", code="proposal_not_found")
    [proposal] = matching
    if (summary.rows, summary.coins) != (proposal.wanted["rows"], proposal.wanted["coins"]):
        details = f"The file now has {summary.rows:,} valid rows with {summary.coins:,} coins"
        raise Conflict(
            "Not what was proposed",
            f"{details}. Reject the proposal and propose the file again",
            code="proposal_stale",
        )
    proposals.confirm(
        proposal.id, shown=proposal.fingerprint, actor=actor, paid_operators=summary.paid_operators
    )
    return f"Confirmed: {summary.rows:,} rows, {summary.coins:,} coins. Import it now: payouts import FILE"
