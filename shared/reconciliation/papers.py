"""What finance reads: the list of every pair compared, and one page that closes to zero.

Written whole or not at all. No UPI id is in either.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from shared.cells import harmless
from shared.clock import INDIA
from shared.money import PAISE_PER_RUPEE, rupees_text
from shared.private_files import create_anew
from shared.reconciliation.running import Result
from shared.reconciliation.summing import Judged, Totals
from shared.states import PaidVia

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
WIDTH = 78


def write(result: Result, directory: Path) -> tuple[Path, Path]:
    """Write the list and the page into `directory`; returns their names. Raises OSError, leaving neither."""
    name = f"reconciliation_{_stamp(result.since)}_{_stamp(result.until)}"
    texts = {directory / f"{name}.csv": listing(result), directory / f"{name}.txt": page(result)}
    parts = {path: path.with_name(f".{path.name}.part") for path in texts}
    try:
        for path, text in texts.items():
            with create_anew(parts[path]) as file:
                file.write(text)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    table, summary = texts
    return table, summary


def listing(result: Result) -> str:
    """The list as CSV, in rupees: one line for each pair, what differs first."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for one in sorted(result.judged, key=lambda one: not (one.kinds or one.explained)):
        writer.writerow([harmless(cell) for cell in _cells(one)])
    return out.getvalue()


def page(result: Result) -> str:
    """The page: what the provider's statement took, what explains it, and that nothing is left."""
    return "\n".join(_lines(result)) + "\n"


def _cells(one: Judged) -> Iterator[str]:
    pair, ours, report = one.pair, one.pair.ours, one.pair.report
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
    yield one.verdict
    yield " ".join(f"#{record}" for record in one.records)


def _lines(result: Result) -> Iterator[str]:
    totals = result.totals
    yield "Reconciliation with RazorpayX"
    yield f"{_time(result.since)} up to, not including, {_time(result.until)} (IST)"
    yield f"Run {result.run_id}: {result.outcome}"
    yield ""
    yield f"{totals.payouts:,} payouts there, {len(result.judged):,} lines compared, in rupees"
    yield ""
    yield _row("RazorpayX's statement: debits for payouts", totals.debits)
    yield _row("- credits for payouts that came back", -totals.credits)
    yield _row("= taken for payouts", totals.net, ruled=True)
    yield ""
    outside = sum(totals.outside.values())
    yield _row("Our books: paid, fees included", totals.paid + outside)
    for via, paise in sorted(totals.outside.items()):
        many = totals.outside_counts[via]
        yield _row(f"- paid outside RazorpayX, by {PaidVia(via).label}: {many:,}", -paise)
    yield _row("- paid and sent back by the bank, refunded", -totals.reversed)
    yield _row("+ on the way, on both sides", totals.on_the_way)
    yield _row("+ not paid: debited and not credited back yet, or the reverse", totals.not_paid)
    yield from _exceptions(totals)
    yield _row("= explained", totals.explained + sum(totals.effects.values()), ruled=True)
    yield ""
    yield _row("Remainder", totals.remainder, ruled=True)
    yield "It closes to zero." if not totals.remainder else "IT DOES NOT CLOSE: something is not named here."
    yield ""
    yield f"Money added to the account: {totals.deposit_count} times, {rupees_text(totals.deposits)}"
    yield f"News that was learnt through this run: {result.applied}; records closed: {result.closed}"
    if result.elsewhere:
        yield f"Sent under other credentials, and not known to these: {result.elsewhere}"


def _exceptions(totals: Totals) -> Iterator[str]:
    for kind in sorted(totals.counts.keys() | totals.effects.keys()):
        yield _row(f"+ {totals.counts[kind]} x {kind}", totals.effects[kind])


def _row(words: str, paise: int, *, ruled: bool = False) -> str:
    rule = f"{'':{WIDTH - 18}}{'-' * 18}\n" if ruled else ""
    return f"{rule}{words:{WIDTH - 18}}{rupees_text(paise):>18}"


def _rupees(paise: int | None) -> str:
    if paise is None:
        return ""
    rupees, rest = divmod(paise, PAISE_PER_RUPEE)
    return f"{rupees}.{rest:02d}"


def _time(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%d %H:%M:%S")


def _stamp(moment: datetime) -> str:
    return moment.astimezone(INDIA).strftime("%Y-%m-%dT%H%M%S")
