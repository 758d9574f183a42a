"""Imports withdrawals from a file, such as prizes to pay."""

import logging
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from cli import import_approval
from cli.actor import actor_of, operator_action
from cli.output import say
from shared.roles import Permission

if TYPE_CHECKING:
    from shared.importing import FileSummary, Result, Row, Scratch, Source

# Exit codes.
ALL_IMPORTED = 0
SOME_REJECTED = 1
NONE_IMPORTED = 2
DRY_RUN_HELP = "Show what would be imported, and change nothing. Daily and monthly limits are not checked."
RESUME_HINT = "Imported rows stay imported, once. Run the same command again to continue."


class NothingImported(click.ClickException):
    """Nothing was imported."""

    exit_code = NONE_IMPORTED


@click.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help=DRY_RUN_HELP)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write a CSV file with the result of each row.",
)
@click.option("--propose", is_flag=True, help="Propose exactly this file; a second person confirms it.")
@click.option("--confirm", is_flag=True, help="Confirm exactly this file, which someone else proposed.")
@click.option("--reason", default="an import", show_default=True, help="Why it is proposed.")
@operator_action(Permission.IMPORT, "import", audit_params=("propose", "confirm"), read_only_option="dry_run")
def import_(
    file: BinaryIO,
    dry_run: bool,
    report: Path | None,
    propose: bool,
    confirm: bool,
    reason: str,
    name: str,
) -> None:
    """Import withdrawals from the rows of a CSV file: exit 0 all, 1 some, 2 none, 130 stopped.

    The first line names the columns, in any order: user_id, amount (coins), upi_id, reference. A reference
    identifies its row forever: you can import the same file, or a corrected one, again without paying twice.

    A file sends money to the UPI ids in it. So one person proposes it (`--propose`), a second checks the same
    file and confirms it (`--confirm`), and then it is imported. Both agree to all of its valid rows,
    including those that cannot be imported now. Neither may be paid by the file.
    """
    if propose + confirm + dry_run > 1:
        raise click.UsageError("use only one of --propose, --confirm, --dry-run")
    from shared import importing
    from shared.errors import BadRequest, SettingsError
    from shared.settings import settings

    try:
        settings()
        copy, digest = import_approval.private_copy(file)
        limits = None if dry_run or propose or confirm else import_approval.confirmed_limits(digest)
        source = importing.Source(copy)
        if report and report.exists() and os.path.samestat(report.stat(), os.fstat(file.fileno())):
            raise NothingImported("The report would overwrite the file")
    except (SettingsError, BadRequest, OSError) as error:
        raise NothingImported(_describe(error)) from None
    with _warnings_only(), _handle_stop() as stop, importing.Scratch() as scratch:
        tally = _Tally(dry_run or propose)
        _read_references(source, scratch, stop)
        if confirm:
            click.echo(import_approval.confirm(digest, _summarize(source, scratch, stop), actor_of(name)))
            return
        rows = source.rows()
        results = (
            importing.preview_rows(rows, scratch)
            if dry_run or propose
            else importing.import_rows(rows, scratch, actor=actor_of(name), limits=limits)
        )
        tally.stopped = _process(results, tally, source, report, stop)
        exit_code = tally.print_totals()
        if stop.is_set():
            sys.exit(stop.status)
        if propose and tally.stopped is None and (summary := _summarize(source, scratch, stop)).rows:
            preview = {
                "name": Path(file.name).name,
                "rows_now": tally.importable_rows,
                "coins_now": tally.coins,
            }
            click.echo(import_approval.propose(digest, summary, preview, reason, actor_of(name)))
            exit_code = min(exit_code, SOME_REJECTED)
    sys.exit(exit_code)


def _read_references(source: "Source", scratch: "Scratch", stop: "_StopRequest") -> None:
    """First pass: check that the file has rows, and collect their references. Raises NothingImported."""
    from shared.importing import Unreadable

    try:
        last = None
        with _with_progress_bar(source.rows(), "Reading", source.size) as rows:
            for last in _until_stopped(stop, rows):
                scratch.add_reference(last.reference, last.line)
    except (Unreadable, OSError, sqlite3.Error) as error:
        raise NothingImported(_describe(error)) from None
    if last is None:
        raise NothingImported("The file has no rows")


def _summarize(source: "Source", scratch: "Scratch", stop: "_StopRequest") -> "FileSummary":
    """Return the totals of the file's valid rows, which people propose and confirm. Raises Unavailable."""
    from shared import importing

    with _with_progress_bar(source.rows(), "Checking", source.size) as rows:
        return importing.summarize(_until_stopped(stop, rows), scratch)


def _until_stopped(stop: "_StopRequest", rows: "Iterable[Row]") -> "Iterator[Row]":
    for row in rows:
        yield row
        if stop.is_set():
            click.echo("Stopped. Nothing was imported.", err=True)
            sys.exit(stop.status)


def _process(
    results: "Iterator[Result]", tally: "_Tally", source: "Source", report: Path | None, stop: "_StopRequest"
) -> str | None:
    """Second pass: process row by row. Returns why it stopped before the end of the file, or None."""
    from shared.errors import Unavailable
    from shared.importing import Unreadable, report_writer

    line = 0
    try:
        with report_writer(report) as write, _with_progress_bar(results, "Importing", source.size) as shown:
            for result in shown:
                line = result.row.line
                tally.count(result)
                write(result)
                if stop.is_set():
                    return f"Stopped after line {line}."
    except (Unavailable, Unreadable, OSError, sqlite3.Error) as error:
        return f"Stopped after line {line}: {_describe(error)}."
    return None


class _StopRequest(Event):
    """A request to stop; `status` is the exit status for the shell."""

    status = 0


class _Tally:
    """Counts the results, and prints them."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._rows: Counter[str] = Counter()
        self._coins = 0
        self.stopped: str | None = None

    @property
    def importable_rows(self) -> int:
        """Rows that a dry run would import."""
        from shared.importing import Outcome

        return self._rows[Outcome.WOULD_BE_IMPORTED]

    @property
    def coins(self) -> int:
        """Coins of all rows that were imported, or would be."""
        return self._coins

    def count(self, result: "Result") -> None:
        self._rows[result.outcome] += 1
        self._coins += result.coins
        if result.error:
            _clear_bar()
            say(f"line {result.row.line}: {result.error}")

    def print_totals(self) -> int:
        """Print the totals; returns the exit status."""
        from shared.importing import Outcome
        from shared.money import coins_to_paise, rupees_text
        from shared.settings import settings

        rupees = rupees_text(coins_to_paise(self._coins, settings().coin_value_paise))
        success = Outcome.WOULD_BE_IMPORTED if self._dry_run else Outcome.IMPORTED
        parts = [
            f"{self._rows[outcome]:,} {outcome}"
            for outcome in (success, Outcome.ALREADY_IMPORTED, Outcome.REJECTED)
        ]
        click.echo(f"{', '.join(parts)}; {self._coins:,} coins, {rupees}")
        if self._dry_run:
            click.echo("Nothing was changed. Daily and monthly limits are not checked.")
        if self.stopped:
            click.echo(self.stopped if self._dry_run else f"{self.stopped} {RESUME_HINT}", err=True)
        if not self._rows[success] + self._rows[Outcome.ALREADY_IMPORTED]:
            return NONE_IMPORTED
        return SOME_REJECTED if self.stopped or self._rows[Outcome.REJECTED] else ALL_IMPORTED


def _describe(error: Exception) -> str:
    from shared.db import causes
    from shared.errors import PayoutsError, SettingsError

    if isinstance(error, PayoutsError) and not isinstance(error, SettingsError):
        return causes.describe(error)
    return str(error)


@contextmanager
def _with_progress_bar(items: "Iterable[Any]", label: str, size: int) -> Iterator[Iterator[Any]]:
    """Yield the items, with a progress bar on a terminal."""
    with click.progressbar(
        length=size,
        label=label,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=size // 500,
    ) as bar:

        def advance() -> Iterator[Any]:
            for item in items:
                row: Row = getattr(item, "row", item)
                bar.update(row.end - bar.pos)
                yield item

        yield advance()


def _clear_bar() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)


@contextmanager
def _handle_stop() -> Iterator["_StopRequest"]:
    """On Ctrl-C or SIGTERM, finish the current row, then stop; a second Ctrl-C stops at once."""
    request = _StopRequest()

    def request_stop(number: int, _frame: object) -> None:
        request.status = 128 + number
        request.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_only() -> Iterator[None]:
    """Log only warnings, to stderr: a line for each row would hide the results."""
    import structlog

    previous = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**previous)


COMMANDS = (import_,)
