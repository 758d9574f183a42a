"""The forms of the panel that change something: one class each, with labels, hints and limits.

`list_filters.py` has the filters of the lists.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from wtforms import BooleanField, Field, SelectField
from wtforms.validators import ValidationError
from wtforms.widgets import HiddenInput

from api.admin.fields import (
    ButtonField,
    ChoiceField,
    Form,
    HiddenChoiceField,
    HiddenTextField,
    LongTextField,
    SecretField,
    TextField,
    VersionField,
    is_version,
)
from shared.access.app_keys import MAX_APP_CHARACTERS, SCOPES
from shared.errors import BadRequest
from shared.ids import parse_id
from shared.roles import Role
from shared.states import PaidVia
from shared.text import names
from shared.text import utr as utrs
from shared.text.fields import MAX_REFERENCE_CHARACTERS, MAX_USER_ID_CHARACTERS, parse_whole_number

MAX_PAYMENT_CHARACTERS = 60
MAX_HANDLE_CHARACTERS = 65
MAX_NAME_CHARACTERS = 50
MAX_EMAIL_CHARACTERS = 254
MAX_URL_CHARACTERS = 2000

# The values of the buttons, which name the action in the audit log as well.
APPROVE = "approve"
REJECT = "reject"
CONFIRM = "confirm"
CLAIM = "claim"
FREEZE = "freeze"
UNFREEZE = "unfreeze"
BLOCK = "block"
UNBLOCK = "unblock"
PAUSE = "pause"
RESUME = "resume"
DISABLE = "disable"
ENABLE = "enable"
ROLE = "role"
SIGN_OUT = "sign_out"
ADD = "add"
INVITE = "invite"
RESET = "reset_second_factor"
EMAIL = "email"
REVOKE = "revoke"
REMOVE = "remove"
CREATE_KEY = "create"
ROTATE_KEY = "rotate"
ADD_ENDPOINT = "add_endpoint"
ROTATE_SECRET = "rotate_endpoint"  # noqa: S105  the value of a button

RECORDED = "It is recorded with your name"
ROLES = {str(role): str(role) for role in Role}
CODE_ATTRIBUTES = {"autocomplete": "one-time-code", "inputmode": "text"}


def _reason(hint: str = RECORDED, **options: Any) -> LongTextField:
    return LongTextField("Reason", required=True, hint=hint, **options)


class ReasonForm(Form):
    """The reason for a change, on the page that says what will happen."""

    reason = _reason()


# --- sign-in and the operator's own account


class SignInForm(Form):
    """Name, password and code. It is not validated, because every wrong sign-in looks the same."""

    next = HiddenTextField()
    username = TextField("Name", attributes={"autocomplete": "username", "autofocus": True, "required": True})
    password = SecretField("Password", autocomplete="current-password")
    code = TextField(
        "Code",
        verbatim=True,
        hint="Six digits from your authenticator app, or a recovery code",
        attributes=CODE_ATTRIBUTES,
    )


class InvitationForm(Form):
    """The password that an invited operator chooses."""

    token = HiddenTextField()
    username = TextField("Name", attributes={"autocomplete": "username", "readonly": True})
    new = SecretField("Password", hint="12 characters or more", autocomplete="new-password")
    again = SecretField("Confirm password", autocomplete="new-password", same_as="new")


class PasswordForm(Form):
    """A new password."""

    # For the browser's password manager.
    username = TextField("Name", attributes={"autocomplete": "username", "readonly": True})
    old = SecretField("Current password", autocomplete="current-password")
    new = SecretField("New password", hint="12 characters or more", autocomplete="new-password")
    again = SecretField("Confirm new password", autocomplete="new-password", same_as="new")


class EnrolForm(Form):
    """The first code of a new authenticator app."""

    first_code = TextField(
        "First code",
        hint="Six digits",
        attributes=CODE_ATTRIBUTES | {"inputmode": "numeric", "autofocus": True, "required": True},
    )


class CodeForm(Form):
    """A fresh code for a change that needs one."""

    second_factor = TextField(
        "Code",
        hint="Six digits, or a recovery code",
        attributes=CODE_ATTRIBUTES | {"autofocus": True, "required": True},
    )


# --- withdrawals


class ActionForm(Form):
    """An action on a withdrawal in the version that the operator saw."""

    version = VersionField()
    proposal = HiddenTextField()
    reason = _reason()


class DecisionActionForm(ActionForm):
    """An action on the withdrawal's open proposal."""

    def validate_proposal(self, field: Field) -> None:
        """The page names the proposal."""
        if parse_id(field.data) is None:
            raise ValidationError("no proposal")


class PaymentActionForm(ActionForm):
    """An action with a payment that was made outside."""

    paid_via = ChoiceField(
        "Paid by", {str(via): via.label for via in utrs.FORMS}, empty="Choose", required=True
    )
    utr = TextField(
        "UTR",
        required=True,
        max_characters=MAX_PAYMENT_CHARACTERS,
        hint="The bank's reference of the payment: 12 digits by UPI and IMPS, 16 characters by NEFT, "
        "22 by RTGS",
    )
    paid_at = TextField(
        "Paid at (IST)",
        required=True,
        max_characters=MAX_PAYMENT_CHARACTERS,
        hint="As on the statement; the user sees it as the time of arrival",
        attributes={"type": "datetime-local"},
    )
    reason = _reason()

    def validate_utr(self, field: Field) -> None:
        """The UTR fits the way of payment; it is kept in capitals and without blanks."""
        if self.paid_via.data in set(utrs.FORMS):
            field.data = _parsed(utrs.normalize, field.data, PaidVia(self.paid_via.data))

    def validate_paid_at(self, field: Field) -> None:
        """A day and a time."""
        _parsed(utrs.parse_paid_at, field.data)


@dataclass(frozen=True, slots=True)
class Selection:
    """A selected withdrawal, in the version that the operator saw."""

    withdrawal_id: UUID
    version: int

    def __str__(self) -> str:
        return f"{self.withdrawal_id}:{self.version}"


class SelectionsField(Field):
    """The selected withdrawals, each once."""

    widget = HiddenInput()

    def process_formdata(self, valuelist: list[str]) -> None:
        """Parse `id:version` of each checkbox."""
        selections = {}
        for text in valuelist:
            id_text, _, version = text.partition(":")
            withdrawal_id = parse_id(id_text)
            if withdrawal_id is None or not is_version(version):
                raise ValueError("no id with a version")
            selections[withdrawal_id] = Selection(withdrawal_id, int(version))
        self.data = list(selections.values())


class BulkForm(Form):
    """One action on the selected withdrawals of a list, and the address of the list."""

    action = HiddenTextField(name="word")
    selections = SelectionsField(name="pick", default=list)
    back = HiddenTextField(max_characters=MAX_URL_CHARACTERS)


# --- users


class DecisionForm(Form):
    """The decision of a second person on a proposal."""

    action = ButtonField((APPROVE, REJECT), name="word")


class FreezeForm(Form):
    """Freeze a wallet, or propose to unfreeze it. Blanks in a user id count."""

    action = HiddenChoiceField((FREEZE, UNFREEZE), name="word")
    subject = HiddenTextField(required=True, verbatim=True, max_characters=MAX_USER_ID_CHARACTERS)
    reason = _reason(id="freeze-reason")  # a page has another form with a reason


class BlockForm(Form):
    """Block a UPI id or a handle, or propose to unblock it."""

    action = ButtonField((BLOCK, UNBLOCK), name="word")
    subject = TextField("UPI id or @handle", required=True, max_characters=MAX_USER_ID_CHARACTERS)
    reason = _reason()


class UnblockForm(Form):
    """Propose to unblock a payee whose UPI id is masked on the page."""

    action = HiddenChoiceField((UNBLOCK,), name="word")
    block = HiddenTextField(required=True)
    reason = _reason("Why payments are possible again. It is recorded with your name")


class CoinsForm(Form):
    """Coins for a user, or from them. The key makes sure that it happens once."""

    subject = HiddenTextField(verbatim=True, max_characters=MAX_USER_ID_CHARACTERS)
    key = HiddenTextField()
    coins = TextField(
        "Coins",
        hint="A negative number takes coins",
        attributes={"inputmode": "numeric", "required": True},
    )
    reference = TextField(
        "Reference",
        max_characters=MAX_REFERENCE_CHARACTERS,
        hint="Records it as a credit, once for each reference",
    )
    reason = _reason()

    def validate_coins(self, _: Field) -> None:
        """A whole number."""
        if self.number is None:
            raise ValidationError("Coins must be a whole number, such as 500 or -500")

    @property
    def number(self) -> int | None:
        """The coins; None if the field is not a whole number."""
        return parse_whole_number(self.coins.data.removeprefix("+"))


# --- payouts and exception records


class PauseForm(Form):
    """Pause or resume payouts: all of them, or those to a handle."""

    action = ButtonField((PAUSE, RESUME), name="word")
    name = SelectField("Scope", validate_choice=False, default="")
    handle = TextField(
        "UPI handle", max_characters=MAX_HANDLE_CHARACTERS, hint="Instead of the scope, such as okaxis"
    )
    version = HiddenTextField(name="seen")
    reason = _reason()


class AssignForm(Form):
    """An exception record in the version that the operator saw."""

    version = HiddenTextField(name="seen")


class CloseForm(AssignForm):
    """How an exception record was resolved."""

    resolution = LongTextField(
        "Resolution", required=True, hint="How it was explained or corrected. Closing a record moves no money"
    )


# --- operators, keys and endpoints


class OperatorForm(Form):
    """A change of an operator."""

    action = ButtonField((DISABLE, ENABLE, ROLE, SIGN_OUT, INVITE, RESET), name="word")
    name = HiddenTextField(max_characters=MAX_NAME_CHARACTERS)
    role = ChoiceField("Role", ROLES)


class RoleForm(OperatorForm):
    """Another role for an operator."""

    role = ChoiceField("Role", ROLES, required=True)


class InviteForm(Form):
    """A new operator."""

    action = ButtonField((ADD,), name="word")
    name = TextField(
        "Name",
        required=True,
        max_characters=MAX_NAME_CHARACTERS,
        hint="Lower-case letters, digits, dots and hyphens",
    )
    role = ChoiceField("Role", ROLES, required=True, default=Role.VIEWER)
    email = TextField(
        "E-mail",
        max_characters=MAX_EMAIL_CHARACTERS,
        hint="For the invitation and for notices",
        attributes={"type": "email"},
    )

    def validate_email(self, field: Field) -> None:
        """An address, in its normal form."""
        field.data = _parsed(names.normalize_email, field.data)


class EmailForm(Form):
    """Another e-mail address of an operator."""

    action = ButtonField((EMAIL,), name="word")
    name = TextField("Name", required=True, max_characters=MAX_NAME_CHARACTERS, id="name-of-email")
    email = TextField(
        "New e-mail",
        required=True,
        max_characters=MAX_EMAIL_CHARACTERS,
        attributes={"type": "email"},
        id="new-email",
    )

    def validate_email(self, field: Field) -> None:
        """An address, in its normal form."""
        field.data = _parsed(names.normalize_email, field.data)


class AdminDecisionForm(Form):
    """The decision of a second admin on the facts that they saw, or a request to show the secret once."""

    action = ButtonField((CONFIRM, REJECT, CLAIM), name="word")
    fingerprint = HiddenTextField(name="shown")


class AppForm(Form):
    """A change of a key or an endpoint."""

    action = ButtonField((REVOKE, ROTATE_KEY, REMOVE, ROTATE_SECRET), name="word")
    subject = HiddenTextField(required=True, max_characters=MAX_URL_CHARACTERS)


class KeyForm(Form):
    """A new key of an app."""

    action = ButtonField((CREATE_KEY,), name="word")
    subject = TextField("App", required=True, max_characters=MAX_APP_CHARACTERS, id="app")

    @property
    def scopes(self) -> list[str]:
        """The selected scopes."""
        return [scope for scope in SCOPES if self[f"scope_{scope}"].data]


for _scope in SCOPES:
    setattr(KeyForm, f"scope_{_scope}", BooleanField(_scope))


class EndpointForm(Form):
    """A new endpoint."""

    action = ButtonField((ADD_ENDPOINT,), name="word")
    subject = TextField(
        "Address", required=True, max_characters=MAX_URL_CHARACTERS, attributes={"type": "url"}, id="url"
    )


def _parsed(parse: Callable[..., Any], *values: Any) -> Any:
    """The parsed values; BadRequest becomes the field's error."""
    try:
        return parse(*values)
    except BadRequest as error:
        raise ValidationError(f"{error.error}: {error.details}") from None
