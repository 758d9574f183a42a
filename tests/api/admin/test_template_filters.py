"""The texts of the panel: rupees, not paise; labels, not names of the code; durations; times in IST."""

from datetime import UTC, datetime

import pytest

from api.admin.template_filters import detail, duration, label
from shared.db.transactions import transaction
from shared.people.exception_records import open_record
from tests.api.admin.conftest import Signed
from tests.support.world import World


@pytest.mark.parametrize(
    ("value", "name", "text"),
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
def test_a_detail_is_readable(value: object, name: str, text: str) -> None:
    assert str(detail(value, name)) == text


def test_labels_are_readable() -> None:
    names = ("payout_id", "utr", "upi_id", "fees_paise", "lookups_without_payout", "http_status")
    assert [label(name) for name in names] == [
        "Payout id", "UTR", "UPI id", "Fees", "Lookups without payout", "HTTP status",
    ]  # fmt: skip


def test_durations_have_units() -> None:
    durations = [duration(seconds) for seconds in (0, 119, 120, 7199, 12_000, 10_800, 172_799, 190_800, None)]
    assert durations == ["0 s", "119 s", "2 min", "2 h", "3 h 20 min", "3 h", "2 days", "2 days 5 h", ""]


def test_no_page_shows_paise_or_names_of_the_code(panel: World, signed_in: Signed) -> None:
    withdrawal_id = panel.paid()
    asha = signed_in()
    with transaction() as session:
        record = open_record(
            session, kind="low_balance", subject="razorpayx", source="watch",
            ours={"needed_paise": 558500, "seen_at": datetime.now(UTC).isoformat()}, theirs={},
        )  # fmt: skip
    panel.sql("""INSERT INTO reconciliation_runs (from_at, to_at, outcome, finished_at, totals)
                 VALUES (now() - interval '1 day', now(), 'clean', now(), '{"remainder_paise": 51300}')""")
    [run] = panel.sql("SELECT id FROM reconciliation_runs")
    for path, text in (
        (f"exceptions/{record}/", "<dt>Needed</dt><dd>₹5,585.00</dd>"),
        (f"reconciliation/{run.id}/", "<dt>Unexplained</dt><dd>₹513.00</dd>"),
        (f"withdrawal/{withdrawal_id}/", "<dt>Lookups without payout</dt>"),
        ("exceptions/", " s</td>"),
    ):
        page = asha.get(f"/admin/{path}").text
        assert text in page and "_paise" not in page, path
