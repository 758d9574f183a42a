"""The kinds of proposals: which facts each depends on, how it is described, and how it is carried out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from shared.errors import BadRequest, Conflict
from shared.models import AdminProposal, Invitation, Operator
from shared.proposals import apps, operators
from shared.roles import Permission

Wanted = dict[str, Any]
# Scopes with which a key moves coins. A key that only reads needs no second admin.
COIN_SCOPES = frozenset({"withdraw", "credit"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of proposal.

    `current_state` returns the facts that a confirmation depends on, and raises PayoutsError if it is not
    possible. `describe` says what will happen. `carry_out` does it on confirmation; `reveal` creates and
    returns the secret when the maker claims it. `needs_file`: it is decided by a file, so it is proposed and
    confirmed at a shell.
    """

    code: str
    title: str
    needs: Permission
    current_state: Callable[[Session, str, Wanted], Wanted]
    describe: Callable[[str, Wanted], list[str]]
    carry_out: Callable[[Session, AdminProposal], Invitation | None] = lambda *_: None
    reveal: Callable[[Session, AdminProposal], tuple[str, str]] | None = None  # a description and the secret
    is_about_operator: bool = False
    needs_file: bool = False


ADD = "operator_add"
ROLE = "operator_role"
ENABLE = "operator_enable"
PASSWORD = "operator_password"  # noqa: S105  no secret
TOTP = "operator_totp"
EMAIL = "operator_email"
LINK = "operator_link"
KEY = "key_create"
ROTATE = "key_rotate"
ENDPOINT = "endpoint_add"
SECRET = "endpoint_rotate"  # noqa: S105  no secret
IMPORT = "import"
REVOKES_LINK = "An unused invitation link stops working."


def gives_power(session: Session, kind: Kind, subject: str, wanted: Wanted) -> bool:
    """True if it needs a second admin: all but a key that only reads. Raises what `current_state` raises."""
    scopes = wanted.get("scopes") if kind.code == KEY else None
    if kind.code == ROTATE:
        scopes = apps.current_key(session, subject, wanted)["scopes"]
    return scopes is None or not COIN_SCOPES.isdisjoint(scopes)


def _check_file(_session: Session, _hash: str, wanted: Wanted) -> Wanted:
    if wanted["rows"] < 1:
        raise BadRequest("No rows", "The file has no rows", code="no_rows")
    return {}


def require_no_file(kind: Kind) -> None:
    """Refuse a kind that needs its file where there is none, such as in the panel. Raises Conflict."""
    if kind.needs_file:
        details = "Confirm it at a shell, with the file: payouts import FILE --confirm"
        raise Conflict("The file is needed", details, code="file_needed")


def _describe_import(digest: str, wanted: Wanted) -> list[str]:
    lines = [
        f"The file {wanted['name']} (SHA-256 {digest[:16]}…) may be imported: {wanted['rows']:,} rows, "
        f"{wanted['coins']:,} coins, whatever the wallets hold now."
    ]
    if "rows_now" in wanted:
        lines.append(
            f"When it was proposed, {wanted['rows_now']:,} rows with {wanted['coins_now']:,} coins could be "
            "imported. The others can be imported once their wallets allow it."
        )
    return [*lines, "Each valid row becomes a withdrawal of its user to its UPI id."]


def _mail_note(wanted: Wanted) -> str:
    return f" The link goes to {wanted['email']}." if wanted.get("email") else ""


KINDS: dict[str, Kind] = {
    kind.code: kind
    for kind in (
        Kind(
            ADD,
            "New operator",
            Permission.OPERATORS,
            operators.check_new_operator,
            lambda name, wanted: [
                f"{name} may sign in as {wanted['role']} after choosing a password.{_mail_note(wanted)}"
            ],
            operators.add,
            is_about_operator=True,
        ),
        Kind(
            ROLE,
            "Higher role",
            Permission.OPERATORS,
            operators.higher_role_state,
            lambda name, wanted: [f"{name} becomes {wanted['role']} and gets the permissions of that role."],
            operators.raise_role,
            is_about_operator=True,
        ),
        Kind(
            ENABLE,
            "Enable",
            Permission.OPERATORS,
            operators.disabled_state,
            lambda name, _: [f"{name} may sign in again, with their old password and role."],
            operators.enable,
            is_about_operator=True,
        ),
        Kind(
            PASSWORD,
            "New invitation",
            Permission.OPERATORS,
            operators.enabled_state,
            lambda name, _: [
                f"{name} gets a new link to choose a new password.",
                "The old password works until then.",
            ],
            operators.invite,
            is_about_operator=True,
        ),
        Kind(
            TOTP,
            "Reset second factor",
            Permission.OPERATORS,
            operators.second_factor_state,
            lambda name, _: [f"{name} signs in with the password alone, and then enrols a new phone."],
            operators.reset_totp,
            is_about_operator=True,
        ),
        Kind(
            EMAIL,
            "E-mail address",
            Permission.OPERATORS,
            operators.new_email_state,
            lambda name, wanted: [
                f"Invitations and notices for {name} go to {wanted['email']}. {REVOKES_LINK}"
            ],
            operators.set_email,
            is_about_operator=True,
        ),
        Kind(
            LINK,
            "Identity",
            Permission.OPERATORS,
            operators.identity_state,
            lambda name, wanted: [
                f"{name} has the app account {wanted['user_id'] or 'none'}, "
                f"e-mail {wanted['email'] or 'none'}, phone {wanted['phone'] or 'none'}.",
                "They cannot decide on anything that benefits these. Invitations go to the e-mail address.",
                REVOKES_LINK,
            ],
            operators.link,
            is_about_operator=True,
        ),
        Kind(
            KEY,
            "New app key",
            Permission.KEYS,
            apps.check_new_key,
            apps.describe_new_key,
            reveal=apps.create_key,
        ),
        Kind(
            ROTATE,
            "Replace app key",
            Permission.KEYS,
            apps.current_key,
            apps.describe_rotated_key,
            reveal=apps.rotate_key,
        ),
        Kind(
            ENDPOINT,
            "New endpoint",
            Permission.ENDPOINTS,
            apps.check_new_endpoint,
            apps.describe_new_endpoint,
            reveal=apps.add_endpoint,
        ),
        Kind(
            SECRET,
            "New secret for an endpoint",
            Permission.ENDPOINTS,
            apps.current_endpoint,
            apps.describe_new_secret,
            reveal=apps.rotate_secret,
        ),
        Kind(
            IMPORT,
            "Import",
            Permission.IMPORT,
            _check_file,
            _describe_import,
            needs_file=True,
        ),
    )
}


def operator_of(session: Session, kind: Kind, subject: str) -> Operator | None:
    """Return the operator that a proposal is about, if there is one yet."""
    return session.get(Operator, subject) if kind.is_about_operator else None
