"""What the front page tells: whether the promises hold, where the money is, how it goes, what is red."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from flask import url_for

from api.admin.facts import HOURS, PACE_MINUTES, Facts
from api.admin.showing import many, percent, span
from shared import spot_checks, watching
from shared.money import rupees_text
from shared.notifications import endpoints
from shared.notifications.mail import operators as mail_to_operators
from shared.settings import settings
from shared.severities import Severity, of_kind
from shared.states import WAITING, Reason, Status
from shared.totals import counting, summing
from shared.withdrawals import pausing, searching

# Red from here on.
UNKNOWN_SECONDS = WAITING[Reason.CONFIRMING][1]
LATE_SECONDS = 120
FAILURES_SHARE, FAILURES_OF = 0.1, 20
BALANCE_HOURS = 2
BALANCE_AGE_TIMES = 5  # so many times as long as the time between two looks
CHECK_AGE_TIMES = 15  # the same for spot checks; PayoutsPromisesNotChecked says so after as long
# What is pending and goes out by itself.
NOT_BY_ITSELF = (Reason.AWAITING_REVIEW, Reason.IN_REVIEW)


@dataclass(frozen=True, slots=True)
class Box:
    """One answer: how it stands in a few characters, words for it, whether to look at it, and where."""

    title: str
    value: str
    words: str
    is_red: bool = False
    address: str = ""
    is_wide: bool = False  # it has a line of its own


def boxes(facts: Facts) -> list[Box]:
    """The answers: whether the promises hold, then the money."""
    return [
        _promises(facts),
        _held(facts),
        _unknown(facts),
        _paid_today(facts),
        _balance(facts),
        *_how_it_ends(facts),
        _to_be_sent(facts),
        _from_razorpayx(facts),
        _to_apps(facts),
        _mail(facts),
        _pauses(facts),
        _people(facts),
    ]


def _promises(facts: Facts) -> Box:
    """The worst that can be: it comes before everything else."""
    address = url_for("exceptions.index", kind=spot_checks.BROKEN)
    open_ones = facts.exceptions.get(spot_checks.BROKEN, 0)
    faults = [f"{row.promise} ({row.faults} rows)" for row in facts.checked if row.faults]
    if faults or open_ones:
        what = f"does not hold: promise {', '.join(faults)}" if faults else "did not hold a while ago"
        words = f"{what}; {many(open_ones, 'open record')}. Pause payouts, then run payouts check"
        return Box("Promises", "BROKEN", words, True, address)
    if not facts.checked:
        return Box("Promises", "not checked", "No spot check has run yet", address=address)
    seconds = (facts.now - min(row.checked_at for row in facts.checked)).total_seconds()
    is_old = seconds > CHECK_AGE_TIMES * settings().watch_seconds
    words = f"last checked {span(seconds)} ago" + ("; does a worker take maintenance?" if is_old else "")
    return Box("Promises", "not checked" if is_old else "kept", words, is_old, address)


def _held(facts: Facts) -> Box:
    number = sum(row.number for row in facts.waiting)
    if not number:
        return Box("Held", rupees_text(0), "No withdrawal is open", address="#held")
    oldest = min(row.oldest for row in facts.waiting)
    overdue = facts.exceptions.get("overdue", 0)
    late = f"; {overdue} later than was said" if overdue else ""
    words = f"{many(number, 'withdrawal')}, the oldest {_age(facts, oldest)} old{late}"
    address = url_for("exceptions.index", kind="overdue") if overdue else "#held"
    paise = int(sum(row.paise for row in facts.waiting))
    return Box("Held", rupees_text(paise), words, bool(overdue), address)


def _unknown(facts: Facts) -> Box:
    unknown = facts.unknown
    address = url_for("withdrawals.index", reason=Reason.CONFIRMING, order=searching.OLDEST)
    if unknown.oldest is None:
        return Box("Unknown", rupees_text(0), "Of each payout we know whether it was made", address=address)
    seconds = (facts.now - unknown.oldest).total_seconds()
    words = f"{many(unknown.number, 'payout')} that may have been made, the oldest {span(seconds)} old"
    return Box("Unknown", rupees_text(unknown.paise), words, seconds > UNKNOWN_SECONDS, address)


def _paid_today(facts: Facts) -> Box:
    today = facts.today
    words = f"{many(today.paid, 'withdrawal')}; {today.asked} asked for, {today.refunded} refunded"
    address = url_for("withdrawals.index", status=Status.COMPLETED)
    return Box("Paid today (IST)", rupees_text(today.paise[counting.PAID]), words, address=address)


def _balance(facts: Facts) -> Box:
    money, address = facts.money, url_for("exceptions.index", kind=pausing.LOW_BALANCE)
    if money.available_paise is None or money.seen_at is None:
        return Box("Balance at RazorpayX", "not told", "RazorpayX has not told it yet", True, address)
    an_hour = facts.last_hour.paise[counting.PAID]
    hours = money.available_paise / an_hour if an_hour else None
    lasts = (
        f"lasts {span(hours * 3600)} at the last hour's rate"
        if hours is not None
        else "none was paid in an hour"
    )
    missing = f"{rupees_text(money.missing_paise)} is missing; " if money.missing_paise else ""
    age = (facts.now - money.seen_at).total_seconds()
    words = f"{missing}{lasts}; {rupees_text(money.needed_paise)} to be paid; told {span(age)} ago"
    is_old = age > BALANCE_AGE_TIMES * settings().watch_seconds
    is_red = bool(money.missing_paise) or (hours is not None and hours < BALANCE_HOURS) or is_old
    return Box("Balance at RazorpayX", rupees_text(money.available_paise), words, is_red, address)


def _how_it_ends(facts: Facts) -> Iterator[Box]:
    day = summing.total(facts.lines)
    is_red = day.tried >= FAILURES_OF and (day.failure_rate or 0) > FAILURES_SHARE
    reversed_ones = day.number[counting.REVERSED]
    words = f"{day.number[counting.FAILED]} of {day.tried} tried in {HOURS} h; {reversed_ones} more reversed"
    if rejected := day.number[counting.REJECTED]:
        words += f"; {rejected} rejected or given back by people, which are no failures"
    address = url_for("withdrawals.index", status=Status.FAILED)
    yield Box("Failed", percent(day.failure_rate), words, is_red, address)
    number = many(day.refunded, "withdrawal")
    words = f"{rupees_text(day.refunded_paise)} of {number} in {HOURS} h, with cancelled ones"
    yield Box("Refunded", percent(day.refund_rate), words, address="#handles")
    words = f"half of the paid ones in {HOURS} h; 95 of 100 within {span(day.p95_seconds)}"
    words = words if day.paid else f"None was paid in {HOURS} h"
    address = url_for("analytics.index", _anchor="times")
    yield Box("From request to paid", span(day.p50_seconds), words, address=address)


def _to_be_sent(facts: Facts) -> Box:
    number = sum(
        row.number
        for row in facts.waiting
        if row.status == Status.PENDING and row.status_reason not in NOT_BY_ITSELF
    )
    a_minute = facts.just_now.tried / PACE_MINUTES
    if not number:
        words = "Nothing waits"
    elif a_minute:
        pace = f"{a_minute:.1f} a minute, as in the last {PACE_MINUTES} min"
        words = f"gone in {span(number / a_minute * 60)} at {pace}"
    else:
        words = f"none ended in {PACE_MINUTES} min, so nobody can say when they will"
    is_late = facts.late_seconds > LATE_SECONDS
    late = f"; due for {span(facts.late_seconds)} and not taken up: do workers run?" if is_late else ""
    silent = "; Redis does not answer" if facts.depths is None else ""
    address = url_for("withdrawals.index", status=Status.PENDING, order=searching.OLDEST)
    is_red = is_late or facts.depths is None
    return Box("To be sent", str(number), words + late + silent, is_red, address)


def _from_razorpayx(facts: Facts) -> Box:
    told, is_silent = facts.webhooks, watching.SILENT in facts.exceptions
    words = "; ".join(_words_of_webhooks(told, facts))
    address = url_for("exceptions.index", kind=watching.SILENT)
    value = "silent" if is_silent else f"{told.received}"
    return Box("Webhooks from RazorpayX", value, words, is_silent, address)


def _words_of_webhooks(told: watching.Webhooks, facts: Facts) -> Iterator[str]:
    yield f"in {HOURS} h, {told.waiting} not applied yet"
    yield f"the last {_age(facts, told.last_received_at)} ago" if told.last_received_at else "none ever came"
    if told.lag_p95_seconds is not None:
        yield f"95 of 100 within {span(max(0, told.lag_p95_seconds))}"
    if told.lost_share is not None:
        yield f"{percent(told.lost_share)} of the ends were seen by asking first"


def _to_apps(facts: Facts) -> Box:
    failing = [one for one in facts.apps if one.failing_since]
    address = url_for("exceptions.index", kind=endpoints.FAILING)
    if not facts.apps:
        return Box("Webhooks to apps", "no endpoint", "No app listens", address=address)
    waiting, failed = sum(one.waiting for one in facts.apps), sum(one.failed for one in facts.apps)
    is_behind = any(one.is_behind for one in facts.apps)
    behind = "; new changes are not looked at: does a notifier run?" if is_behind else ""
    words = f"{len(failing)} of {len(facts.apps)} endpoints fail; {waiting} wait, {failed} given up{behind}"
    is_red = bool(failing) or is_behind
    return Box("Webhooks to apps", "failing" if failing else "works", words, is_red, address)


def _mail(facts: Facts) -> Box:
    now, address = facts.mail, url_for("exceptions.index", kind=mail_to_operators.BROKEN)
    if now is None:
        return Box("Mail", "off", "SMTP_HOST is not set", address=address)
    behind = "; news is not looked at: does a notifier run?" if now.is_behind else ""
    words = f"{now.waiting} wait, {now.failed} given up{behind}"
    is_red = bool(now.failing_since) or now.is_behind
    return Box("Mail", "failing" if now.failing_since else "works", words, is_red, address)


def _pauses(facts: Facts) -> Box:
    address = url_for("switches.index")
    if not facts.off:
        return Box("Pauses", "none", "Payouts go out", address=address)
    return Box("Pauses", str(len(facts.off)), ", ".join(switch.name for switch in facts.off), True, address)


def _people(facts: Facts) -> Box:
    awaiting = sum(row.number for row in facts.waiting if row.status_reason == Reason.AWAITING_REVIEW)
    records = sum(facts.exceptions.values())
    critical = sum(n for kind, n in facts.exceptions.items() if of_kind(kind) is Severity.CRITICAL)
    words = f"{many(awaiting, 'withdrawal')} to approve, {many(records, 'exception record')}"
    words += f" ({critical} critical)" if critical else ""
    words += f", {many(facts.decisions, 'decision')} for a second person"
    number = awaiting + records + facts.decisions
    is_red = bool(critical)
    address = url_for("exceptions.index", severity=Severity.CRITICAL) if critical else "#people"
    return Box("Waits for people", str(number), words, is_red, address, is_wide=True)


def _age(facts: Facts, moment: datetime) -> str:
    return span((facts.now - moment).total_seconds())
