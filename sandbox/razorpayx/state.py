"""The simulator's state, with indexes that keep lookups quick."""

from __future__ import annotations

import hashlib
import secrets
import string
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from .clock import Timer
from .deliveries import Delivery
from .scenarios import DEFAULT, Scenario, Step

ALPHABET = string.ascii_letters + string.digits
KEY_LIFE_SECONDS = 7 * 24 * 3600  # `MD:api/x/payout-idempotency.md`


def new_id(prefix: str) -> str:
    """`<prefix>_` and 14 random alphanumerics (`MD:api/understand.md`), so that a restart does not repeat
    ids.
    """
    return f"{prefix}_{bare_id()}"


def bare_id() -> str:
    """14 alphanumerics."""
    return "".join([ALPHABET[byte % 62] for byte in secrets.token_bytes(14)])


@dataclass(slots=True)
class Contact:
    """`MD:api/x/contacts/create.md`; deduplicated by all fields except the notes."""

    id: str
    fields: dict[str, Any]
    created_at: int
    active: bool = True

    def identity(self) -> tuple[Any, ...]:
        """The fields by which another create finds this contact."""
        return contact_identity(self.fields)


def contact_identity(fields: dict[str, Any]) -> tuple[Any, ...]:
    """name + email + contact + type + reference_id (`MD:api/x/contacts/create.md`)."""
    return tuple(fields.get(name) for name in ("name", "email", "contact", "type", "reference_id"))


@dataclass(slots=True)
class FundAccount:
    """Immutable except for `active` (`MD:x/fund-accounts/faqs.md`)."""

    id: str
    contact: Contact
    kind: str
    detail: Any  # the VPA's address, or the bank account's fields
    created_at: int
    active: bool = True

    @property
    def vpa(self) -> str | None:
        """The address, if it is a VPA."""
        return self.detail if self.kind == "vpa" else None


@dataclass(slots=True)
class Payout:
    """One payout and its remaining steps."""

    id: str
    number: int
    key: str
    scenario: Scenario
    fund_account: FundAccount
    composite: bool
    fields: dict[str, Any]
    created_at: float
    odd: int
    status: str = "created"
    reason: str | None = None
    fees: int = 0
    tax: int = 0
    utr: str | None = None
    held_paise: int = 0  # debited and not credited back
    debited: bool = False
    debit_written: bool = False
    steps: list[Step] = field(default_factory=list)
    timer: Timer | None = None
    history: list[tuple[float, str, str | None]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    withheld: list[Delivery] = field(default_factory=list)


@dataclass(slots=True)
class KeyRecord:
    """The record of one idempotency key."""

    first_at: float
    calls: int = 0
    digest: bytes | None = None
    in_flight: bool = False
    scenario: Scenario | None = None
    payout: Payout | None = None
    saved_reply: bytes = b""


@dataclass(slots=True)
class ScenarioRules:
    """Scenarios set by control calls; `creates.choose_scenario` has their order."""

    by_reference: dict[str, Scenario] = field(default_factory=dict)
    by_vpa: dict[str, Scenario] = field(default_factory=dict)
    next_creates: list[tuple[Scenario, int]] = field(default_factory=list)
    default: Scenario = DEFAULT

    def take_next(self, at_fund_account: bool) -> Scenario | None:
        """Use one of the scenarios for the next N creates, if one applies to this kind of create."""
        for index, (scenario, left) in enumerate(self.next_creates):
            if scenario.at_fund_account is at_fund_account:
                self.next_creates[index : index + 1] = [(scenario, left - 1)] if left > 1 else []
                return scenario
        return None


class World:
    """The account's money, its payouts, contacts, fund accounts and statement."""

    def __init__(self, balance_paise: int) -> None:
        self.balance_paise = balance_paise
        self.contacts: dict[str, Contact] = {}
        self.contact_by_identity: dict[tuple[Any, ...], Contact] = {}
        self.fund_accounts: dict[str, FundAccount] = {}
        self.fund_account_by_identity: dict[tuple[Any, ...], FundAccount] = {}
        self.fund_account_calls: dict[str, int] = defaultdict(int)
        self.payouts: dict[str, Payout] = {}
        self.by_reference: dict[str, list[Payout]] = defaultdict(list)
        self.by_fund_account: dict[str, list[Payout]] = defaultdict(list)
        self.in_order: list[Payout] = []
        self.low_balance_queue: dict[str, Payout] = {}  # a dict for its order
        self.keys: dict[str, KeyRecord] = {}
        self.transactions: list[dict[str, Any]] = []
        self.transaction_by_id: dict[str, dict[str, Any]] = {}
        self.rules = ScenarioRules()
        self.utr_base = 400_000_000_000 + secrets.randbelow(99_999_999_999)
        self.utrs = 0

    def add_contact(self, fields: dict[str, Any], now: float) -> tuple[Contact, bool]:
        """The existing contact with these fields, or a new one (True)."""
        existing = self.contact_by_identity.get(contact_identity(fields))
        if existing is not None:
            return existing, False
        contact = Contact(new_id("cont"), fields, int(now))
        self.contacts[contact.id] = self.contact_by_identity[contact.identity()] = contact
        return contact, True

    def add_fund_account(
        self, contact: Contact, kind: str, detail: Any, now: float
    ) -> tuple[FundAccount, bool]:
        """The existing fund account of this contact with this detail, or a new one (True)."""
        flat = tuple(sorted(detail.items())) if isinstance(detail, dict) else detail
        identity = (contact.id, kind, flat)
        existing = self.fund_account_by_identity.get(identity)
        if existing is not None:
            return existing, False
        account = FundAccount(new_id("fa"), contact, kind, detail, int(now))
        self.fund_accounts[account.id] = self.fund_account_by_identity[identity] = account
        return account, True

    def add_payout(self, payout: Payout) -> None:
        """Add it to all indexes."""
        self.payouts[payout.id] = payout
        self.in_order.append(payout)
        self.by_fund_account[payout.fund_account.id].append(payout)
        if payout.fields["reference_id"]:
            self.by_reference[payout.fields["reference_id"]].append(payout)

    def key_record(self, key: str, now: float) -> KeyRecord:
        """The key's record. A record older than 7 days is replaced, so the key can create a second payout."""
        record = self.keys.get(key)
        if record is None or now - record.first_at > KEY_LIFE_SECONDS:
            record = self.keys[key] = KeyRecord(now)
        return record

    def created_between(self, start: int | None, end: int | None) -> list[Payout]:
        """Payouts created in that interval of whole Unix seconds, oldest first; both ends included."""
        low = 0 if start is None else bisect_left(self.in_order, start, key=_whole_second)
        high = len(self.in_order) if end is None else bisect_right(self.in_order, end, key=_whole_second)
        return self.in_order[low:high]

    def transactions_between(self, start: int | None, end: int | None) -> list[dict[str, Any]]:
        """Lines of the statement in that interval, oldest first; both ends included."""
        low = 0 if start is None else bisect_left(self.transactions, start, key=_line_time)
        high = len(self.transactions) if end is None else bisect_right(self.transactions, end, key=_line_time)
        return self.transactions[low:high]

    def next_utr(self) -> str:
        """12 digits, never the same twice."""
        self.utrs += 1
        return str(self.utr_base + self.utrs)


def _whole_second(payout: Payout) -> int:
    return int(payout.created_at)


def _line_time(line: dict[str, Any]) -> int:
    return line["created_at"]


def digest(raw: bytes) -> bytes:
    """The digest that defines "the same request body": the same bytes, the strictest reading of
    `MD:errors/x.md`.
    """
    return hashlib.sha256(raw).digest()
