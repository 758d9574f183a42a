"""The text of a mail, composed from its row when it is sent: plain text and HTML, no image, no hyperlink."""

from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cache
from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from shared.clock import INDIA, from_iso
from shared.money import rupees_text
from shared.notifications.mail.recipients import parse_address
from shared.people import invitations
from shared.people.severities import Severity, severity_of
from shared.settings import settings
from shared.text.invisible import mark_invisible

MAX_KINDS_IN_SUBJECT = 3

# What operators read for a kind of exception record. Other kinds are shown as they are named.
KIND_LABELS = {
    "low_balance": "low balance at RazorpayX",
    "not_reconciled": "day not reconciled with RazorpayX",
    "overdue": "withdrawal overdue",
    "paused": "payouts paused",
    "promise_broken": "integrity check failed",
    "webhooks_out": "webhooks to an app failing",
    "webhooks_silent": "no webhooks from RazorpayX",
}


def compose(email_id: UUID, recipient: str, facts: dict[str, Any], created_at: datetime) -> EmailMessage:
    """The whole mail. The same row makes the same mail at each attempt."""
    template, subject, context = _content(facts)
    values = context | {"app": settings().mail_app_name, "subject": subject}
    message = _new_message(recipient, subject, email_id, created_at)
    message.set_content(_render(f"{template}.txt", values), cte="quoted-printable")
    message.add_alternative(_render(f"{template}.html", values), subtype="html", cte="quoted-printable")
    # A random boundary would be the only difference between two attempts.
    message.set_boundary(f"part-{email_id}")
    return message


def compose_test(recipient: str, email_id: UUID, created_at: datetime) -> EmailMessage:
    """The mail of `payouts mail test`."""
    message = _new_message(recipient, f"{settings().mail_app_name}: test mail", email_id, created_at)
    message.set_content("This is a test mail from `payouts mail test`.\n", cte="quoted-printable")
    return message


def sender_address() -> str:
    """The address of MAIL_FROM."""
    sender = settings().mail_from
    assert sender, "the settings require it"
    return parse_address(parseaddr(sender)[1] if sender.endswith(">") else sender)


def domain() -> str:
    """The domain of MAIL_FROM, by which we introduce ourselves to servers."""
    return sender_address().rpartition("@")[2]


def kind_label(kind: str) -> str:
    """What operators read for a kind of exception record."""
    return KIND_LABELS.get(kind, kind.replace("_", " "))


def _new_message(recipient: str, subject: str, email_id: UUID, created_at: datetime) -> EmailMessage:
    # This policy refuses a header with a line break in it.
    message = EmailMessage(policy=SMTP)
    message["From"] = _sender()
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = format_datetime(created_at)
    message["Message-ID"] = f"<{email_id}@{domain()}>"
    message["Auto-Submitted"] = "auto-generated"  # asks for no out-of-office replies (RFC 3834)
    return message


def _sender() -> Address:
    sender = settings().mail_from or ""
    name = parseaddr(sender)[0] if sender.endswith(">") else ""
    return Address(display_name=name or settings().mail_app_name, addr_spec=sender_address())


def _content(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The template's name, the subject, and the template's values."""
    if "records" in facts:
        return _records_content(facts)
    if "notice" in facts:
        return _notice_content(facts["notice"])
    if "invitation" in facts:
        return _invitation_content(facts["invitation"])
    return _withdrawal_content(facts)


def _withdrawal_content(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    rupees = rupees_text(facts["amount_paise"])
    subject = {
        "completed": f"We paid {rupees} to {facts['upi_id']}",
        "failed": f"We could not pay {rupees}: your coins are back in your wallet",
        "cancelled": "Your withdrawal was cancelled: your coins are back in your wallet",
    }[facts["status"]]
    if facts["was"] == "completed":
        subject = f"Your bank returned {rupees}: your coins are back in your wallet"
    coins = f"{facts['coins']:,} coin{'' if facts['coins'] == 1 else 's'}"
    return "withdrawal", subject, facts | {"rupees": rupees, "coins": coins, "at": _ist(facts["at"])}


def _records_content(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    # Sorted here: PostgreSQL does not keep the order of a JSON object.
    kinds = sorted(facts["kinds"].items(), key=lambda item: (severity_of(item[0]).rank, -item[1], item[0]))
    labels = [kind_label(kind) if number == 1 else f"{number} × {kind_label(kind)}" for kind, number in kinds]
    is_critical = any(severity_of(kind) is Severity.CRITICAL for kind in facts["kinds"])
    summary = ", ".join(labels[:MAX_KINDS_IN_SUBJECT]) + (", …" if len(labels) > MAX_KINDS_IN_SUBJECT else "")
    subject = f"[{settings().mail_app_name}] {'CRITICAL: ' if is_critical else ''}{summary}"
    records = [
        record
        | {
            "opened_at": _ist(record["opened_at"]),
            "severity": severity_of(record["kind"]),
            "kind": kind_label(record["kind"]),
        }
        for record in facts["records"]
    ]
    context = {
        "records": records,
        "more": facts["more"],
        "total": sum(facts["kinds"].values()),
        "page": _panel_url("exceptions"),
    }
    return "records", subject, context


def _notice_content(notice: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    subject = f"[{settings().mail_app_name}] {notice['subject']}"
    return "notice", subject, {"lines": notice["lines"], "page": _panel_url("operators")}


def _invitation_content(invitation: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The link is made when the mail is sent, so the waiting row does not contain it."""
    context = {"name": invitation["name"], "link": invitations.url_of(UUID(invitation["id"]))}
    return "invitation", f"[{settings().mail_app_name}] Choose your password", context


def _panel_url(page: str) -> str | None:
    """The URL of a page of the panel; None if ADMIN_URL is not set."""
    admin_url = settings().admin_url
    return f"{admin_url.rstrip('/')}/{page}/" if admin_url else None


def _ist(moment: str) -> str:
    """A moment in Indian time: `24 November 2026, 15:30 IST`."""
    at = from_iso(moment).astimezone(INDIA)
    return f"{at.day} {at:%B %Y}, {at:%H:%M} IST"


def _render(template: str, values: dict[str, Any]) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("shared.notifications.mail"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        # Text from others must not hide characters or change the reading direction.
        finalize=lambda value: mark_invisible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
