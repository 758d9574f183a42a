"""What can be proposed: whom it gives what, how that reads, and what carries it out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict
from shared.models import AdminProposal, Invitation, Operator
from shared.proposals import apps, people
from shared.roles import Permission

Wanted = dict[str, Any]
# Scopes with which a key moves coins. A key that only reads needs no second person.
MOVES_COINS = frozenset({"withdraw", "credit"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that can be proposed.

    `stands` says what is there now, and raises PayoutsError when it cannot be done. `tells` says what will
    happen. `does` carries it out when it is confirmed; `shows` later, when its proposer claims the secret.
    `needs_file`: nobody can say yes to it without its file, so it is proposed and confirmed at a shell.
    """

    word: str
    title: str
    needs: Permission
    stands: Callable[[Session, str, Wanted], Wanted]
    tells: Callable[[str, Wanted], list[str]]
    does: Callable[[Session, AdminProposal], Invitation | None] = lambda *_: None
    shows: Callable[[Session, AdminProposal], tuple[str, str]] | None = None  # words, and the secret
    is_about_operator: bool = False
    needs_file: bool = False


LINK = "operator_link"
ADD, ROLE, ENABLE = "operator_add", "operator_role", "operator_enable"
PASSWORD, TOTP, EMAIL = "operator_password", "operator_totp", "operator_email"
KEY, ROTATE, ENDPOINT, SECRET = "key_create", "key_rotate", "endpoint_add", "endpoint_rotate"
IMPORT = "import"
ENDS_LINK = "A link that they did not use yet stops working."


def gives_power(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """Whether it needs a second person: all but a key that can only read. Raises what `stands` raises."""
    scopes = wanted.get("scopes") if kind.word == KEY else None
    if kind.word == ROTATE:
        scopes = apps.key(session, subject, wanted)["scopes"]
    return scopes is None or not MOVES_COINS.isdisjoint(scopes)


def _a_file(_session: Session, _hash: str, wanted: Wanted) -> Wanted:
    if wanted["rows"] < 1:
        raise BadRequest("No rows", "The file has no rows", code="no_rows")
    return {}


def must_need_no_file(kind: Kind) -> None:
    """For the ways on which there is no file at hand, such as the panel. Raises Conflict."""
    if kind.needs_file:
        words = "Confirm it at a shell, with the file: payouts import FILE --confirm"
        raise Conflict("The file is needed", words, code="file_needed")


def _tells_import(digest: str, wanted: Wanted) -> list[str]:
    told = [
        f"The file {wanted['name']} (SHA-256 {digest[:16]}…) may be imported: {wanted['rows']:,} rows, "
        f"{wanted['coins']:,} coins, whatever the wallets hold now."
    ]
    if "rows_now" in wanted:
        told.append(
            f"When it was proposed, {wanted['rows_now']:,} rows with {wanted['coins_now']:,} coins could be "
            "taken; the others can be taken once their wallets allow it."
        )
    return [*told, "Each good row becomes a withdrawal of its user to its UPI id."]


def _mailed(wanted: Wanted) -> str:
    return f" The link goes to {wanted['email']}." if wanted.get("email") else ""


KINDS: dict[str, Kind] = {
    kind.word: kind
    for kind in (
        Kind(
            ADD,
            "New operator",
            Permission.OPERATORS,
            people.new_operator,
            lambda name, wanted: [
                f"{name} may sign in as {wanted['role']}, once they chose a password.{_mailed(wanted)}"
            ],
            people.add,
            is_about_operator=True,
        ),
        Kind(
            ROLE,
            "Higher role",
            Permission.OPERATORS,
            people.higher_role,
            lambda name, wanted: [f"{name} becomes {wanted['role']} and may do what that role may."],
            people.raise_role,
            is_about_operator=True,
        ),
        Kind(
            ENABLE,
            "Enable",
            Permission.OPERATORS,
            people.disabled,
            lambda name, _: [f"{name} may sign in again, with their old password and role."],
            people.enable,
            is_about_operator=True,
        ),
        Kind(
            PASSWORD,
            "New invitation",
            Permission.OPERATORS,
            people.enabled,
            lambda name, _: [
                f"{name} gets a new link and chooses a new password with it.",
                "The old password works until then.",
            ],
            people.invite,
            is_about_operator=True,
        ),
        Kind(
            TOTP,
            "Reset second factor",
            Permission.OPERATORS,
            people.with_second_factor,
            lambda name, _: [f"{name} signs in with the password alone, and enrols a new phone then."],
            people.reset_totp,
            is_about_operator=True,
        ),
        Kind(
            EMAIL,
            "E-mail address",
            Permission.OPERATORS,
            people.other_email,
            lambda name, wanted: [f"Invitations and notices for {name} go to {wanted['email']}. {ENDS_LINK}"],
            people.set_email,
            is_about_operator=True,
        ),
        Kind(
            LINK,
            "Who they are",
            Permission.OPERATORS,
            people.linked,
            lambda name, wanted: [
                f"{name} is known by app account {wanted['user_id'] or 'none'}, "
                f"e-mail {wanted['email'] or 'none'}, phone {wanted['phone'] or 'none'}.",
                "They decide nothing that would serve these. Invitations go to the e-mail address.",
                ENDS_LINK,
            ],
            people.link,
            is_about_operator=True,
        ),
        Kind(KEY, "New app key", Permission.KEYS, apps.new_key, apps.tells_key, shows=apps.show_key),
        Kind(
            ROTATE, "Replace app key", Permission.KEYS, apps.key, apps.tells_rotated, shows=apps.show_rotated
        ),
        Kind(
            ENDPOINT,
            "New endpoint",
            Permission.ENDPOINTS,
            apps.new_endpoint,
            apps.tells_endpoint,
            shows=apps.show_endpoint,
        ),
        Kind(
            SECRET,
            "New secret for an endpoint",
            Permission.ENDPOINTS,
            apps.an_endpoint,
            apps.tells_secret,
            shows=apps.show_secret,
        ),
        Kind(
            IMPORT,
            "Import",
            Permission.IMPORT,
            _a_file,
            _tells_import,
            needs_file=True,
        ),
    )
}


def operator_of(session: Session, kind: Kind, subject: str) -> Operator | None:
    """The operator whom a proposal is about, if there is one yet."""
    return session.get(Operator, subject) if kind.is_about_operator else None
