"""A file of withdrawals is proposed by one person and confirmed by a second: just this file."""

import hashlib
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from shared.importing import Contents, Most

MAX_NAME = 100


def copied(file: BinaryIO) -> tuple[BinaryIO, str]:
    """A copy that nobody else can write to, and its SHA-256: what was confirmed is what is imported."""
    if not file.seekable():
        return file, ""  # Source says what is wrong with it
    mine, digest = tempfile.TemporaryFile(), hashlib.sha256()  # noqa: SIM115  open for the whole import
    while piece := file.read(2**20):
        mine.write(piece)
        digest.update(piece)
    mine.flush()
    file.seek(0)
    return mine, digest.hexdigest()


def must_be_confirmed(digest: str) -> "Most | None":
    """How much of this file was confirmed; None where no second person is needed.

    Raises Conflict when one is needed and none has confirmed this file lately; Unavailable.
    """
    from shared import db, proposals
    from shared.errors import Conflict
    from shared.importing import Most
    from shared.proposals import kinds

    kind = proposals.KINDS[kinds.IMPORT]
    with db.transaction() as session:
        if not proposals.needs_second(session, kind, digest, {}):
            return None
        made = proposals.confirmed(session, kind, digest)
        if made is None:
            words = "Propose this file with --propose; a second person confirms it with --confirm"
            raise Conflict("A second person is needed", words, code="not_confirmed")
        return Most(made.wanted["rows"], made.wanted["coins"])


def propose(digest: str, whole: "Contents", about: dict[str, Any], reason: str, actor: str) -> str:
    """Propose the whole of this file; words about it. Raises PayoutsError."""
    from shared import proposals
    from shared.proposals import kinds

    wanted = about | {"name": about["name"][:MAX_NAME], "rows": whole.rows, "coins": whole.coins}
    kind = proposals.KINDS[kinds.IMPORT]
    made = proposals.propose(kind, digest, wanted, reason=reason, actor=actor, pays=whole.pays).proposal
    if made.outcome is not None:
        return "No second person is needed: payouts import FILE"
    told = f"Proposed: {whole.rows:,} rows, {whole.coins:,} coins, whatever the wallets hold now"
    return f"{told}. A second person looks at the same file: payouts import FILE --confirm"


def confirm(digest: str, whole: "Contents", actor: str) -> str:
    """Confirm what another proposed about this file; words about it. Raises PayoutsError."""
    from shared import db, proposals
    from shared.errors import Conflict, NotFound
    from shared.proposals import kinds

    with db.transaction() as session:
        waiting = proposals.waiting(session)
    mine = [made for made in waiting if (made.kind, made.subject) == (kinds.IMPORT, digest)]
    if not mine:
        raise NotFound("No such proposal", "Nobody proposed just this file", code="proposal_not_found")
    [waits] = mine
    if (whole.rows, whole.coins) != (waits.wanted["rows"], waits.wanted["coins"]):
        words = f"The file has {whole.rows:,} good rows with {whole.coins:,} coins now"
        raise Conflict(
            "Not what was proposed", f"{words}: reject it, propose it again", code="proposal_stale"
        )
    proposals.confirm(waits.id, shown=waits.fingerprint, actor=actor, pays=whole.pays)
    return (
        f"Confirmed: {whole.rows:,} rows, {whole.coins:,} coins. It may be imported now: payouts import FILE"
    )
