"""What people rule about a user: freeze and unfreeze the wallet, give and take coins, block a UPI id.

Like everything that acts here: a reason, a page that says what will happen, and the verb of `shared`.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import abort, request, url_for
from sqlalchemy.orm import Session

from api.admin import door, records
from api.admin.page import DO, Page, back_to, does, given, number, opens
from shared import adjusting, blocks, wallet
from shared.db import transaction
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.fields import MAX_REFERENCE, MAX_USER_ID, whole_number
from shared.ids import new_id, parse_id
from shared.models import Adjustment, Block, BlockRemoval
from shared.money import coins_to_paise, rupees_text
from shared.roles import Permission, Role
from shared.settings import settings
from shared.upi import mask, mask_within

FREEZE, UNFREEZE, BLOCK, UNBLOCK = "freeze", "unfreeze", "block", "unblock"
PROPOSED = "Proposed. A second person must approve it."
TURNED = {
    FREEZE: "The wallet of {} is frozen.",
    UNFREEZE: PROPOSED,
    BLOCK: "{} is blocked.",
    UNBLOCK: PROPOSED,
}


SECOND = ("Nothing changes until a second person approves. Then:",)
HELD = "What was held still awaits approval."


class Ruling(Page):
    """`/admin/ruling/`: what the forms on a user's page and on the list of blocks lead to."""

    title, endpoint_name, in_menu = "Ruling", "ruling", False

    @opens("/turn/", Permission.FREEZE, methods=("POST",), asks_code=does)
    def turn(self) -> Any:
        """Freeze a wallet, block a payee; propose the end of either."""
        word = request.form.get("word", "")
        of_user = word in (FREEZE, UNFREEZE)
        subject = given("subject", longest=MAX_USER_ID, as_it_stands=of_user)
        about: dict[str, Any] = {"user": subject} if of_user else {}
        back = "users.index" if about else "blocks.index"
        block = request.form.get("block")
        try:
            if block:
                subject = _blocked(block).subject
            if word not in (FREEZE, UNFREEZE, BLOCK, UNBLOCK) or not subject:
                raise BadRequest("Incomplete form", "Load the page anew", code="bad_word")
            reason = given("reason", required="A reason is required")
            if request.form.get("step") != DO:
                _must_make_sense(word, subject)
                # Who sees a masked UPI id names it by its block.
                named = {"block": block} if block else {"subject": subject}
                fields = {"word": word, **named, "reason": reason}
                tells = _tells(word, subject) + ([_told_by(block)] if block else [])
                return self._confirm(f"{word.capitalize()}?", tells, fields, url_for(back, **about))
            shown = subject if about or subject.startswith("@") else mask(subject)
            with records.kept(word, subject=shown, reason=reason, block=block), transaction() as session:
                _turn(session, word, subject, reason)
        except PayoutsError as error:
            words = f"{error.error}: {error.details}. Nothing was done."
            if about or block:
                return back_to(back, words, "refused", **about)
            return self._again("Block or unblock", words, url_for(back))
        return back_to(back, TURNED[word].format(shown), **about)

    @opens("/unblock/<int:block_id>/", Permission.FREEZE)
    def unblock(self, block_id: int) -> Any:
        """The form that lets a payee be paid again of whom only the masked UPI id is seen."""
        block = _blocked(str(block_id))
        return self.render("unblock.html", title=f"Unblock {_shown(block.subject)}", block=block)

    @opens("/lift/<uuid:removal_id>/", Permission.FREEZE, methods=("POST",), asks_code=does)
    def lift(self, removal_id: UUID) -> Any:
        """Approve or reject the end of a freeze or a block that somebody else proposed."""
        word = request.form.get("word", "")
        with transaction() as session:
            made = session.get(BlockRemoval, removal_id)
            block = session.get_one(Block, made.block_id) if made else None
        if made is None or block is None or word not in ("approve", "reject"):
            abort(404)
        about: dict[str, Any] = {"user": block.subject} if block.kind == blocks.WALLET else {}
        back = "users.index" if about else "blocks.index"
        try:
            if request.form.get("step") != DO:
                tells = [f"{made.proposed_by} proposed it: {mask_within(made.reason)}"]
                tells += _tells_end(block) if word == "approve" else ["It stays as it is."]
                title = f"{word.capitalize()} the end of a {'freeze' if about else 'block'}?"
                return self._confirm(title, tells, {"word": word}, url_for(back, **about))
            reason = given("reason", required="A reason is required")
            told = _shown(block.subject)
            with (
                records.kept(f"unblock_{word}", subject=removal_id, reason=reason, block=block.id),
                transaction() as session,
            ):
                (blocks.approve if word == "approve" else blocks.reject)(
                    session, removal_id, actor=door.actor()
                )
        except PayoutsError as error:
            return back_to(back, f"{error.error}: {error.details}. Nothing was done.", "refused", **about)
        done = "can ask for withdrawals again" if about else "is not blocked any more"
        return back_to(back, f"{told} {done}." if word == "approve" else "Rejected.", **about)

    @opens("/coins/", Permission.COINS, methods=("POST",), asks_code=does)
    def coins(self) -> Any:
        """Give coins to a user, or take some; above the limit a second person must agree."""
        user_id = given("subject", longest=MAX_USER_ID, as_it_stands=True)
        try:
            number, reference = whole_number(request.form.get("coins", "").removeprefix("+")), None
            reference = given("reference", longest=MAX_REFERENCE) or None
            reason = given("reason", required="A reason is required")
            if number is None:
                raise BadRequest("Invalid coins", "A whole number; below zero it takes", code="invalid_coins")
            if request.form.get("step") != DO:
                fields = {"subject": user_id, "coins": number, "reference": reference, "reason": reason}
                tells = [*_tells_coins(user_id, number, reference), _tells_who(user_id, number, reference)]
                back = url_for("users.index", user=user_id)
                return self._confirm("Change coins?", tells, fields | {"key": new_id()}, back)
            key = parse_id(request.form.get("key", ""))
            if key is None:
                raise BadRequest("Incomplete form", "Load the page anew", code="no_key")
            with records.kept("coins", subject=user_id, reason=reason, coins=number) as after:
                made = adjusting.propose(
                    user_id, number, reason=reason, actor=door.actor(), reference=reference, key=key
                )
                after["adjustment"] = str(made.id)
        except PayoutsError as error:
            words = f"{error.error}: {error.details}. Nothing was done."
            return self._again("Give or take coins", words, url_for("users.index", user=user_id))
        told = _done(made) if made.decided_at else "Proposed. A second person must approve it."
        return back_to("users.index", told, user=user_id)

    @opens("/coins/<uuid:adjustment_id>/", Permission.COINS, methods=("POST",), asks_code=does)
    def decide(self, adjustment_id: UUID) -> Any:
        """Approve or reject what somebody else proposed."""
        word = request.form.get("word", "")
        with transaction() as session:
            made = session.get(Adjustment, adjustment_id)
        if made is None or word not in ("approve", "reject"):
            abort(404)
        try:
            if request.form.get("step") != DO:
                tells, back = _tells_decision(made, word), url_for("users.index", user=made.user_id)
                return self._confirm(f"{word.capitalize()}?", tells, {"word": word}, back)
            reason = given("reason", required="A reason is required")
            about = {"coins": made.coins, "user": made.user_id}
            with records.kept(f"coins_{word}", subject=adjustment_id, reason=reason, **about):
                if word == "approve":
                    told = _done(adjusting.approve(adjustment_id, actor=door.actor()))
                else:
                    adjusting.reject(adjustment_id, actor=door.actor())
                    told = "Rejected. No coin has moved."
        except PayoutsError as error:
            words = f"{error.error}: {error.details}. Nothing was done."
            return back_to("users.index", words, "refused", user=made.user_id)
        return back_to("users.index", told, user=made.user_id)

    def _confirm(self, title: str, tells: list[str], fields: dict[str, Any], back: str) -> Any:
        return self.render("ruling.html", title=title, tells=tells, fields=fields, back=back)

    def _again(self, title: str, fault: str, back: str) -> Any:
        """The form once more, with what was typed into it."""
        page = self.render("ruling_again.html", title=title, fault=fault, typed=request.form, back=back)
        return page, 400


class Blocks(Page):
    """`/admin/blocks/`: UPI ids and handles that are not paid, and frozen wallets."""

    title, endpoint_name = "Blocks", "blocks"

    @opens("/", Role.VIEWER)
    def index(self) -> Any:
        """Who is not paid, since when, by whom, why."""
        with transaction() as session:
            return self.render(
                "blocks.html",
                title="Who is not paid",
                payees=blocks.listing(session),
                frozen=blocks.listing(session, kind=blocks.WALLET),
                removals=with_refusals(session, blocks.waiting(session)),
            )


def with_refusals(session: Session, found: Sequence[tuple[BlockRemoval, Block]]) -> list[tuple[Any, ...]]:
    """Each with why whoever looks may not approve it, if so."""
    return [(made, block, blocks.why_not(session, made, block, door.actor())) for made, block in found]


def _turn(session: Session, word: str, subject: str, reason: str) -> None:
    verb: Any = {
        FREEZE: blocks.freeze,
        UNFREEZE: blocks.propose_unfreeze,
        BLOCK: blocks.add,
        UNBLOCK: blocks.propose_unblock,
    }[word]
    verb(session, subject, reason=reason, actor=door.actor())


def _blocked(block_id: str) -> Block:
    """The payee's block with this id. Raises NotFound, also when it has ended."""
    with transaction() as session:
        block = session.get(Block, number(whole_number(block_id) or 0))
    if block is None or block.kind != blocks.UPI_ID or block.removed_at is not None:
        raise NotFound("Not blocked", "There is no such block", code="block_not_found")
    return block


def _told_by(block_id: str) -> str:
    """Which block is meant: masked, two may look the same."""
    block = _blocked(block_id)
    return f"{block.added_by} blocked it: {mask_within(block.reason)}"


def _must_make_sense(word: str, subject: str) -> None:
    """Before somebody is asked whether to. Raises BadRequest, NotFound."""
    if word == BLOCK:
        blocks.subject_of(subject)
    if word == UNBLOCK:
        with transaction() as session:
            blocks.find(session, subject)


def _shown(payee: str) -> str:
    return payee if payee.startswith("@") or "@" not in payee else mask(payee)


def _tells(word: str, subject: str) -> list[str]:
    shown = _shown(subject)
    return {
        FREEZE: [
            f"{subject} can ask for no withdrawal any more.",
            "What waits is held for a person before it is sent; what was sent is followed.",
            "The coins stay; they can come in and come back.",
        ],
        UNFREEZE: [*SECOND, f"{subject} can ask for withdrawals again.", HELD],
        BLOCK: [
            f"Nothing more is paid to {shown}, whoever asks.",
            "What waits is held for a person before it is sent; what was sent is followed.",
        ],
        UNBLOCK: [*SECOND, f"{shown} is paid again.", HELD],
    }[word]


def _tells_end(block: Block) -> list[str]:
    """What its approval does."""
    word = UNFREEZE if block.kind == blocks.WALLET else UNBLOCK
    return [
        f"{block.added_by} did it because of: {mask_within(block.reason)}",
        *_tells(word, block.subject)[1:],
    ]


def _tells_coins(user_id: str, coins: int, reference: str | None) -> list[str]:
    """What it does to the balance. Raises BadRequest when that would fall below zero."""
    with transaction() as session:
        owner = wallet.find(session, user_id)
        wallet.must_hold(owner, coins)
        balance = owner.balance_coins
    worth = rupees_text(coins_to_paise(abs(coins), settings().coin_value_paise))
    return [
        f"{user_id} {'gets' if coins > 0 else 'loses'} {abs(coins)} coins, worth {worth}.",
        f"The balance goes from {balance} to {balance + coins}.",
        "It counts as a credit." if reference else "It counts as an adjustment, not as a credit.",
    ]


def _tells_who(user_id: str, coins: int, reference: str | None) -> str:
    with transaction() as session:
        if adjusting.needs_two(session, user_id, coins, actor=door.actor(), reference=reference):
            most, in_sum = settings().adjust_alone_max_coins, settings().adjust_alone_sum_coins
            if most == 0:
                return "A second person must approve it."
            return (
                f"A second person must approve it: alone you may change {most} coins a day, never your own, "
                f"and all people together {in_sum}."
            )
    return "It is done at once."


def _tells_decision(made: Adjustment, word: str) -> list[str]:
    proposed = f"{made.proposed_by} proposed {made.coins:+d} coins for {made.user_id}: {made.reason}"
    if word == "approve":
        return [proposed, *_tells_coins(made.user_id, made.coins, made.reference), "It is done at once."]
    return [proposed, "The proposal is off the table, and no coin moves."]


def _done(made: Adjustment) -> str:
    verb = "were given to" if made.coins > 0 else "were taken from"
    return f"Done: {abs(made.coins)} coins {verb} {made.user_id}."
