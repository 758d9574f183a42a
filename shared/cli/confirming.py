"""A file of withdrawals is proposed by one person and confirmed by a second: just this file."""

import hashlib
import tempfile
from typing import Any, BinaryIO

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


def must_be_confirmed(digest: str) -> None:
    """Raises Conflict when a second person is needed and none has confirmed this file lately; Unavailable."""
    from shared import db, proposals
    from shared.errors import Conflict
    from shared.proposals import kinds

    kind = proposals.KINDS[kinds.IMPORT]
    with db.transaction() as session:
        if not proposals.needs_second(session, kind, digest, {}):
            return
        if not proposals.is_confirmed(session, kind, digest):
            words = "Propose this file with --propose; a second person confirms it with --confirm"
            raise Conflict("A second person is needed", words, code="not_confirmed")


def propose(digest: str, wanted: dict[str, Any], reason: str, actor: str) -> str:
    """Propose this file; words about it. Raises PayoutsError."""
    from shared import proposals
    from shared.proposals import kinds

    wanted["name"] = wanted["name"][:MAX_NAME]
    kind = proposals.KINDS[kinds.IMPORT]
    made = proposals.propose(kind, digest, wanted, reason=reason, actor=actor).proposal
    if made.outcome is not None:
        return "No second person is needed: payouts import FILE"
    return "Proposed. A second person looks at the same file: payouts import FILE --confirm"


def confirm(digest: str, actor: str) -> str:
    """Confirm what another proposed about this file; words about it. Raises PayoutsError."""
    from shared import db, proposals
    from shared.errors import NotFound
    from shared.proposals import kinds

    with db.transaction() as session:
        waiting = proposals.waiting(session)
    mine = [made for made in waiting if (made.kind, made.subject) == (kinds.IMPORT, digest)]
    if not mine:
        raise NotFound("No such proposal", "Nobody proposed just this file", code="proposal_not_found")
    made = proposals.confirm(mine[0].id, shown=mine[0].fingerprint, actor=actor).proposal
    rows, coins = made.wanted["rows"], made.wanted["coins"]
    return f"Confirmed: {rows:,} rows, {coins:,} coins. It may be imported now: payouts import FILE"
