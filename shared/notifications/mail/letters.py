"""The words of a mail, made from what its row tells when it is sent. Text and HTML; no image, no link."""

from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cache
from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from shared import invitations
from shared.clock import INDIA, from_iso
from shared.money import rupees_text
from shared.notifications.mail.recipients import address_of
from shared.settings import settings
from shared.severities import Severity, of_kind
from shared.visible import visible

# Kind of exception record -> what it means. Others are told by their own word.
KINDS = {
    "low_balance": "too little money at RazorpayX",
    "not_reconciled": "a day was not compared with RazorpayX",
    "overdue": "later than promised",
    "paused": "payouts paused",
    "promise_broken": "the books contradict themselves",
    "webhooks_out": "an app takes no webhooks",
    "webhooks_silent": "RazorpayX sends no webhooks",
}


def letter(email_id: UUID, recipient: str, facts: dict[str, Any], at: datetime) -> EmailMessage:
    """The whole mail; `at` is when it was written down. The same row makes the same mail, try after try."""
    template, subject, words = _content(facts)
    values = words | {"app": settings().mail_app_name, "subject": subject}
    # A header of this policy takes no line break, whatever stands in it.
    message = EmailMessage(policy=SMTP)
    message["From"] = _sender()
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{email_id}@{domain()}>"
    message["Auto-Submitted"] = "auto-generated"  # no "I am on holiday" comes back (RFC 3834)
    message.set_content(_rendered(f"{template}.txt", values), cte="quoted-printable")
    message.add_alternative(_rendered(f"{template}.html", values), subtype="html", cte="quoted-printable")
    # Made anew each time, it would be the one thing that differs.
    message.set_boundary(f"part-{email_id}")
    return message


def probe(recipient: str, email_id: UUID, at: datetime) -> EmailMessage:
    """The mail of `payouts mail test`."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = _sender(), recipient
    message["Subject"] = f"{settings().mail_app_name}: mail works"
    message["Date"], message["Message-ID"] = format_datetime(at), f"<{email_id}@{domain()}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("This mail was sent by `payouts mail test`.\n", cte="quoted-printable")
    return message


def sender_address() -> str:
    """The address of MAIL_FROM."""
    written = settings().mail_from
    assert written, "the settings see to it"
    return address_of(parseaddr(written)[1] if written.endswith(">") else written)


def domain() -> str:
    """The domain of MAIL_FROM: ours, as servers know it."""
    return sender_address().rpartition("@")[2]


def kind_in_words(kind: str) -> str:
    """What a kind of exception record means."""
    return KINDS.get(kind, kind.replace("_", " "))


def _sender() -> Address:
    name = parseaddr(settings().mail_from or "")[0] if (settings().mail_from or "").endswith(">") else ""
    return Address(display_name=name or settings().mail_app_name, addr_spec=sender_address())


def _content(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    if "records" in facts:
        return _of_records(facts)
    if "notice" in facts:
        return _of_notice(facts["notice"])
    if "invitation" in facts:
        return _of_invitation(facts["invitation"])
    return _of_withdrawal(facts)


def _of_withdrawal(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    rupees, to = rupees_text(facts["amount_paise"]), facts["upi_id"]
    subject = {
        "completed": f"{rupees} was paid to {to}",
        "failed": f"{rupees} could not be paid: your coins are back",
        "cancelled": "Your withdrawal was cancelled: your coins are back",
    }[facts["status"]]
    if facts["was"] == "completed":
        subject = f"Your bank sent {rupees} back: your coins are back"
    return "withdrawal", subject, facts | {"rupees": rupees, "at": _in_india(facts["at"])}


def _of_records(facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    # Not in the order of the row: the database keeps none of a JSON object's.
    worst_first = sorted(facts["kinds"].items(), key=lambda one: (of_kind(one[0]).rank, -one[1], one[0]))
    kinds = {kind_in_words(kind): number for kind, number in worst_first}
    loud = "CRITICAL: " if any(of_kind(kind) is Severity.CRITICAL for kind in facts["kinds"]) else ""
    shown = [name if number == 1 else f"{number} × {name}" for name, number in list(kinds.items())[:3]]
    records = [
        record
        | {
            "opened_at": _in_india(record["opened_at"]),
            "severity": of_kind(record["kind"]),
            "kind": kind_in_words(record["kind"]),
        }
        for record in facts["records"]
    ]
    rest = ", …" if len(kinds) > len(shown) else ""
    subject = f"[{settings().mail_app_name}] {loud}{', '.join(shown)}{rest}"
    words = {
        "records": records,
        "more": facts["more"],
        "total": sum(kinds.values()),
        "page": _page("exceptions"),
    }
    return "records", subject, words


def _of_notice(notice: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    subject = f"[{settings().mail_app_name}] {notice['subject']}"
    return "notice", subject, {"lines": notice["lines"], "page": _page("operators")}


def _of_invitation(invited: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The link is made here, when it is sent: the row that waits holds none."""
    words = {"name": invited["name"], "link": invitations.link(UUID(invited["id"]))}
    return "invitation", f"[{settings().mail_app_name}] Choose your password", words


def _page(name: str) -> str | None:
    """The address of a page of the panel; None when we do not know where operators reach it."""
    where = settings().admin_url
    return f"{where.rstrip('/')}/{name}/" if where else None


def _in_india(moment: str) -> str:
    at = from_iso(moment).astimezone(INDIA)
    return f"{at.day} {at:%B %Y}, {at:%H:%M} IST"


def _rendered(template: str, values: dict[str, Any]) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("shared.notifications.mail"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        # Whatever others wrote: what nobody sees is named, and nothing reads backwards.
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
