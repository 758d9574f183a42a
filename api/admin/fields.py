"""The base of the panel's forms, and the kinds of fields that they have.

A field checks its own limits, so a request that bypasses the page is refused as well. No text may hold a NUL,
which PostgreSQL cannot store.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Self

from flask import request
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from wtforms import Field, PasswordField, SelectChoice, SelectField, StringField
from wtforms.validators import AnyOf, EqualTo, Length, StopValidation, ValidationError
from wtforms.widgets import DateInput, HiddenInput, TextArea

from shared.clock import INDIA
from shared.errors import BadRequest
from shared.money import PAISE_PER_RUPEE

MAX_TEXT_CHARACTERS = 500
MAX_VERSION_DIGITS = 18
MAX_FILTER_PAISE = 2**53  # far above any payout, and every number type here can hold it

Validator = Callable[[Any, Any], None]


class Form(FlaskForm):
    """A form of the panel, empty or with the given values."""

    class Meta(FlaskForm.Meta):
        csrf = False  # app.py checks the token of every form before its view runs

    def __init__(self, formdata: MultiDict[str, str] | None = None, **values: Any) -> None:
        super().__init__(formdata=formdata, **values)

    @classmethod
    def submitted(cls) -> Self:
        """The form as it was sent: its text only, no files and no JSON."""
        return cls(request.form)

    @property
    def fault(self) -> str:
        """The first error of a form that was checked, for the top of its page."""
        return next((f"{field.errors[0]}. Nothing was done." for field in self if field.errors), "")

    def require_valid(self) -> None:
        """Raises BadRequest with the first error. Each field keeps its own, to show beside it."""
        if self.validate():
            return
        field = next(field for field in self if field.errors)
        if isinstance(field, ButtonField) or isinstance(field.widget, HiddenInput):
            raise incomplete_form()
        raise BadRequest(field.errors[0], code="invalid_form")


def incomplete_form() -> BadRequest:
    """The error of a form that lacks what its page sends."""
    return BadRequest("Incomplete form", "Reload the page and try again", code="incomplete_form")


class FilterForm(Form):
    """The filters of a list, which stand in the query."""

    @classmethod
    def submitted(cls) -> Self:
        """The filters as they were sent."""
        return cls(request.args)

    def require_valid(self) -> None:
        """Raises BadRequest with the first error."""
        if not self.validate():
            [error, *_] = [field.errors[0] for field in self if field.errors]
            raise BadRequest("Invalid filter", error, code="bad_filter")

    def query(self) -> dict[str, str]:
        """What was typed, without the empty fields: for links to the same list."""
        return {
            field.name: field.raw_data[0] for field in self if field.raw_data and field.raw_data[0].strip()
        }


class Required:
    """Refuses an empty field. The browser does so as well."""

    field_flags: ClassVar[dict[str, bool]] = {"required": True}

    def __call__(self, _: Form, field: Field) -> None:
        if not field.data:
            raise StopValidation(f"{field.label.text.partition(':')[0]} is required")


class TextField(StringField):
    """One line of text, trimmed unless it is `verbatim`. A view may set `suggestions`."""

    suggestions: Sequence[str] = ()

    def __init__(
        self,
        label: str = "",
        validators: Sequence[Validator] = (),
        *,
        required: bool = False,
        max_characters: int = MAX_TEXT_CHARACTERS,
        verbatim: bool = False,
        hint: str = "",
        attributes: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        too_long = f"{label} can have at most {max_characters} characters"
        checks: list[Validator] = [Length(max=max_characters, message=too_long), _refuse_nul]
        checks += [Required()] if required else []
        super().__init__(
            label,
            [*checks, *validators],
            filters=() if verbatim else (_trim,),
            default="",
            description=hint,
            render_kw={"autocomplete": "off"} | (attributes or {}),
            **options,
        )


class LongTextField(TextField):
    """Several lines of text, such as a reason."""

    widget = TextArea()

    def __init__(self, label: str, **options: Any) -> None:
        super().__init__(label, attributes={"rows": 3}, **options)


class HiddenTextField(TextField):
    """A text that the page sends back as it is."""

    widget = HiddenInput()


class VersionField(HiddenTextField):
    """The version of the row that the operator saw."""

    def __init__(self, **options: Any) -> None:
        super().__init__(validators=[_require_version], **options)


class ButtonField(StringField):
    """The value of the button that was pressed. Templates write the buttons themselves."""

    def __init__(self, values: Iterable[str], **options: Any) -> None:
        super().__init__(validators=[AnyOf(tuple(values))], default="", **options)


class HiddenChoiceField(ButtonField):
    """One of a few values that the page sends back as it is."""

    widget = HiddenInput()


class ChoiceField(SelectField):
    """One of several values with their labels; with an `empty` label also none."""

    def __init__(
        self,
        label: str,
        choices: Mapping[str, str],
        *,
        empty: str = "",
        required: bool = False,
        default: str = "",
        **options: Any,
    ) -> None:
        unknown = f"{label} must be one of {', '.join(choices)}"
        checks: list[Validator] = [Required()] if required else []
        shown = {"": empty, **choices} if empty else choices
        super().__init__(
            label,
            [*checks, AnyOf(["", *choices], message=unknown)],
            choices=[SelectChoice(value, text) for value, text in shown.items()],
            validate_choice=False,  # AnyOf does it
            default=default,
            **options,
        )


class DayField(StringField):
    """A day in India, whose midnights exist in every zone: a date, or None if the field is empty."""

    widget = DateInput()

    def __init__(self, label: str, *, is_end: bool = False, hint: str = "", **options: Any) -> None:
        super().__init__(label, description=hint, **options)
        self._is_end = is_end

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        try:
            self.data = date.fromisoformat(text) if text else None
            if self.midnight is not None:
                self.midnight.astimezone(UTC)
        except (ValueError, OverflowError):
            self.data = None
            raise ValueError(f"{self.label.text} must be a day, such as 2026-11-24") from None

    @property
    def midnight(self) -> datetime | None:
        """The moment at which the day begins, or ends if the field is the end of a range."""
        if self.data is None:
            return None
        return datetime.combine(self.data + timedelta(days=1 if self._is_end else 0), time(), INDIA)

    def _value(self) -> str:
        return self.raw_data[0] if self.raw_data else str(self.data or "")


class RupeesField(StringField):
    """An amount in rupees as people write it: in paise, or None if the field is empty."""

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        try:
            paise = Decimal(text.replace(",", "").removeprefix("₹")) * PAISE_PER_RUPEE if text else None
        except ArithmeticError:  # no number, or one with too many digits
            paise = Decimal(-1)
        if paise is not None and not (
            paise.is_finite() and 0 <= paise <= MAX_FILTER_PAISE and paise == int(paise)
        ):
            raise ValueError(f"{self.label.text} must be an amount in rupees, such as 500 or 99.50")
        self.data = None if paise is None else int(paise)

    def _value(self) -> str:
        return self.raw_data[0] if self.raw_data else ""


class SecretField(PasswordField):
    """A password as it was typed: a blank at its end is a part of it. No page shows it again."""

    def __init__(
        self, label: str, *, autocomplete: str, hint: str = "", same_as: str = "", **options: Any
    ) -> None:
        checks: list[Validator] = [Required()]
        checks += [EqualTo(same_as, "The two passwords differ")] if same_as else []
        super().__init__(
            label,
            checks,
            default="",
            description=hint,
            render_kw={"autocomplete": autocomplete},
            **options,
        )


def _trim(text: str | None) -> str:
    return (text or "").strip()


def _refuse_nul(_: Form, field: StringField) -> None:
    if "\x00" in (field.data or ""):
        raise StopValidation(f"{field.label.text} contains characters that are not allowed")


def is_version(text: str) -> bool:
    """True for the version of a row as pages write it."""
    return text.isdecimal() and len(text) <= MAX_VERSION_DIGITS


def _require_version(_: Form, field: StringField) -> None:
    if not is_version(field.data):
        raise ValidationError("no version")
