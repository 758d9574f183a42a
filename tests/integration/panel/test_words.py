"""What people read: rupees and words instead of paise and names of the code, spans of time, times in India."""

from datetime import UTC, datetime

import pytest

from api.admin.showing import label, span, told
from shared.db import transaction
from shared.exception_records import open_record
from tests.integration.panel.conftest import Signed
from tests.world import World


@pytest.mark.parametrize(
    ("value", "name", "words"),
    [
        (558500, "needed_paise", "₹5,585.00"),
        ({"two_payouts": 51300, "held": 0}, "exceptions_paise", "Two payouts: ₹513.00, Held: ₹0.00"),
        ([{"debit_paise": 100, "id": "txn_1"}, {"id": None}], "statement", "Debit: ₹1.00, Id: txn_1; "),
        (558500, "coins", "558500"),
        (None, "fees_paise", "None"),
        (True, "in_doubt", "yes"),
        ("2026-11-24T18:30:00Z", "at", '<time datetime="2026-11-24T18:30:00Z">25 Nov 2026, 00:00:00</time>'),
        ("2026-99-24T18:30:00Z", "at", "2026-99-24T18:30:00Z"),
        ({"upi_id": "asha@okaxis"}, "", "UPI id: as…@okaxis"),
        ({"<b>": "<i>"}, "", "&lt;b&gt;: &lt;i&gt;"),
    ],
)
def test_a_detail_is_told_in_words(value: object, name: str, words: str) -> None:
    assert str(told(value, name)) == words


def test_names_are_words() -> None:
    names = ("payout_id", "utr", "upi_id", "fees_paise", "answered_with_none", "http_status")
    assert [label(name) for name in names] == [
        "Payout id", "UTR", "UPI id", "Fees", "Look-ups that found none", "HTTP status",
    ]  # fmt: skip


def test_spans_are_hours_and_minutes() -> None:
    told = [span(seconds) for seconds in (0, 119, 120, 7199, 12_000, 10_800, 172_799, 190_800, None)]
    assert told == ["0 s", "119 s", "2 min", "2 h", "3 h 20 min", "3 h", "2 days", "2 days 5 h", ""]


def test_no_page_tells_paise_or_names_of_the_code(panel: World, signed_in: Signed) -> None:
    withdrawal_id, asha = panel.paid(), signed_in()
    with transaction() as session:
        record = open_record(
            session, kind="low_balance", subject="razorpayx", source="watch",
            ours={"needed_paise": 558500, "seen_at": datetime.now(UTC).isoformat()}, theirs={},
        )  # fmt: skip
    panel.sql("""INSERT INTO reconciliation_runs (from_at, to_at, outcome, finished_at, totals)
                 VALUES (now() - interval '1 day', now(), 'clean', now(), '{"remainder_paise": 51300}')""")
    [run] = panel.sql("SELECT id FROM reconciliation_runs")
    for path, words in (
        (f"exceptions/{record}/", "<dt>Needed</dt><dd>₹5,585.00</dd>"),
        (f"reconciliation/{run.id}/", "<dt>Explained by nothing</dt><dd>₹513.00</dd>"),
        (f"withdrawal/{withdrawal_id}/", "<dt>Look-ups that found none</dt>"),
        ("exceptions/", " s</td>"),
    ):
        page = asha.get(f"/admin/{path}").text
        assert words in page and "_paise" not in page, path
