"""The files for finance: a CSV list of all compared pairs, and a summary page whose remainder is zero.

Both are written completely or not at all. Neither contains UPI ids.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from shared.clock import INDIA
from shared.money import PAISE_PER_RUPEE, rupees_text
from shared.reconciliation.day_totals import ComparedPair, Totals
from shared.reconciliation.run import Result
from shared.states import PaidVia
from shared.text.csv_cells import escape_formula
from shared.text.private_files import recreate

COLUMNS = (
    "withdrawal",
    "attempt",
    "payout",
    "utr_ours",
    "utr_theirs",
    "amount_ours",
    "amount_theirs",
    "status_ours",
    "status_theirs",
    "fees_ours",
    "fees_theirs",
    "tax_ours",
    "tax_theirs",
    "refunded",
    "transactions",
    "statement_debit",
    "statement_credit",
    "verdict",
    "exceptions",
)
PAGE_WIDTH = 78  # characters
AMOUNT_WIDTH = 18
LABEL_WIDTH = PAGE_WIDTH - AMOUNT_WIDTH


def write_files(result: Result, directory: Path) -> tuple[Path, Path]:
    """Write the list and the page to `directory` and return their paths. On OSError it leaves neither."""
    name = f"reconciliation_{_stamp(result.since)}_{_stamp(result.until)}"
    texts = {directory / f"{name}.csv": csv_text(result), directory / f"{name}.txt": page_text(result)}
    parts = {path: path.with_name(f".{path.name}.part") for path in texts}
    try:
        for path, text in texts.items():
            with recreate(parts[path]) as file:
                file.write(text)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    table, summary = texts
    return table, summary


def csv_text(result: Result) -> str:
    """The list as CSV, in rupees: one row per pair, mismatches first."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(COLUMNS)
    for item in sorted(result.compared, key=lambda item: not (item.kinds or item.explained_kinds)):
        writer.writerow([escape_formula(cell) for cell in _cells(item)])
    return output.getvalue()


def page_text(result: Result) -> str:
    """The summary page: the net debit in the provider's statement, what explains it, and the remainder."""
    return "\n".join(_page_lines(result)) + "\n"


def _cells(item: ComparedPair) -> Iterator[str]:
    pair = item.pair
    ours = pair.ours
    report = pair.report
    yield str(ours.withdrawal_id) if ours else ""
    yield str(ours.attempt_id) if ours else ""
    yield report.payout_id if report else (ours and ours.payout_id) or ""
    yield (ours and ours.utr) or ""
    yield (report and report.utr) or ""
    yield _rupees(ours.amount_paise if ours else None)
    yield _rupees(report.amount_paise if report else None)
    yield ours.state if ours else ""
    yield report.status if report else ""
    yield _rupees(ours.fees_paise if ours else None)
    yield _rupees(report.fees_paise if report else None)
    yield _rupees(ours.tax_paise if ours else None)
    yield _rupees(report.tax_paise if report else None)
    yield "yes" if ours and ours.is_refunded else "no" if ours else ""
    yield " ".join(line.id for line in pair.lines)
    yield _rupees(pair.debit_paise)
    yield _rupees(pair.credit_paise)
    yield item.verdict
    yield " ".join(f"#{record_id}" for record_id in item.records)


def _page_lines(result: Result) -> Iterator[str]:
    totals = result.totals
    yield "Reconciliation with RazorpayX"
    yield f"From {_time(result.since)} up to, not including, {_time(result.until)} (IST)"
    yield f"Run {result.run_id}: {result.outcome}"
    yield ""
    yield f"{totals.payouts:,} payouts at RazorpayX, {len(result.compared):,} pairs compared, in rupees"
    yield ""
    yield _row("RazorpayX statement: debits for payouts", totals.debits)
    yield _row("- credits for failed and reversed payouts", -totals.credits)
    yield _row("= net debit for payouts", totals.net, ruled=True)
    yield ""
    outside = sum(totals.outside.values())
    yield _row("Our ledger: paid, including fees", totals.paid + outside)
    for via, paise in sorted(totals.outside.items()):
        count = totals.outside_counts[via]
        yield _row(f"- paid outside RazorpayX, by {PaidVia(via).label}: {count:,}", -paise)
    yield _row("- reversed by the bank and refunded", -totals.reversed)
    yield _row("+ in progress on both sides", totals.in_progress)
    yield _row("+ not paid: debits not yet credited back, less late credits", totals.not_paid)
    yield from _exceptions(totals)
    yield _row("= explained", totals.explained + sum(totals.exceptions.values()), ruled=True)
    yield ""
    yield _row("Remainder", totals.remainder, ruled=True)
    yield "The totals balance." if not totals.remainder else "THE TOTALS DO NOT BALANCE: see the remainder."
    yield ""
    yield f"Deposits to the account: {totals.deposit_count:,}, {rupees_text(totals.deposits)}"
    yield f"Updates applied by this run: {result.applied:,}; records closed: {result.closed:,}"
    if result.under_other_credentials:
        yield f"Attempts sent with other credentials, not checked: {result.under_other_credentials:,}"


def _exceptions(totals: Totals) -> Iterator[str]:
    for kind in sorted(totals.counts.keys() | totals.exceptions.keys()):
        yield _row(f"+ {totals.counts[kind]} x {kind}", totals.exceptions[kind])


def _row(label: str, paise: int, *, ruled: bool = False) -> str:
    rule = f"{'':{LABEL_WIDTH}}{'-' * AMOUNT_WIDTH}\n" if ruled else ""
    return f"{rule}{label:{LABEL_WIDTH}}{rupees_text(paise):>{AMOUNT_WIDTH}}"


def _rupees(paise: int | None) -> str:
    if paise is None:
        return ""
    rupees, remaining_paise = divmod(paise, PAISE_PER_RUPEE)
    return f"{rupees}.{remaining_paise:02d}"


def _time(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S")


def _stamp(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%dT%H%M%S")
