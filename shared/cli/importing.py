"""Many withdrawals from a file: prizes to pay."""

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

from shared.cli import confirming
from shared.cli.acting import acting, actor_of
from shared.cli.saying import say
from shared.roles import Permission

if TYPE_CHECKING:
    from shared.importing import Contents, Result, Row, Scratch, Source

ALL, SOME, NONE = 0, 1, 2
DRY_RUN = "Say what would be taken, and change nothing. Limits per day and month are not foretold."
GOES_ON = "What was taken stays taken, once: the same command goes on safely."


class Nothing(click.ClickException):
    """Nothing was done."""

    exit_code = NONE


@click.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help=DRY_RUN)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write a CSV with what became of each row.",
)
@click.option("--propose", is_flag=True, help="Propose just this file; a second person confirms it.")
@click.option("--confirm", is_flag=True, help="Confirm just this file, which another proposed.")
@click.option("--reason", default="an import", show_default=True, help="Why it is proposed.")
@acting(Permission.IMPORT, "import", tells=("propose", "confirm"), unless="dry_run")
def import_(
    file: BinaryIO,
    dry_run: bool,
    report: Path | None,
    propose: bool,
    confirm: bool,
    reason: str,
    name: str,
) -> None:
    """Take a withdrawal for each row of a CSV file: exit 0 all taken, 1 some refused, 2 none, 130 stopped.

    The first line names the columns, in any order: user_id, amount (coins), upi_id, reference. A reference
    names its row for ever: the same file, or a mended one, may be imported again, and takes nothing twice.

    A file sends money to the UPI ids in it. So one person proposes it (`--propose`), a second looks at the
    same file and confirms it (`--confirm`), and then it is imported. Both agree to all of its good rows, also
    those that cannot be taken now; neither may be among those whom it pays.
    """
    if propose + confirm + dry_run > 1:
        raise click.UsageError("give one of --propose, --confirm, --dry-run")
    from shared import importing
    from shared.errors import BadRequest, SettingsError
    from shared.settings import settings

    try:
        settings()
        mine, digest = confirming.copied(file)
        most = None if dry_run or propose or confirm else confirming.must_be_confirmed(digest)
        source = importing.Source(mine)
        if report and report.exists() and os.path.samestat(report.stat(), os.fstat(file.fileno())):
            raise Nothing("The report would overwrite the file")
    except (SettingsError, BadRequest, OSError) as error:
        raise Nothing(_words(error)) from None
    with _quietly(), _stoppable() as stop, importing.Scratch() as scratch:
        tally = _Tally(dry_run or propose)
        _read(source, scratch, stop)
        if confirm:
            click.echo(confirming.confirm(digest, _whole(source, scratch, stop), actor_of(name)))
            return
        rows = source.rows()
        results = (
            importing.rehearse(rows, scratch)
            if dry_run or propose
            else importing.take(rows, scratch, actor=actor_of(name), most=most)
        )
        tally.stopped = _go(results, tally, source, report, stop)
        code = tally.end()
        if stop.is_set():
            sys.exit(stop.status)
        if propose and tally.stopped is None and (whole := _whole(source, scratch, stop)).rows:
            about = {
                "name": Path(file.name).name,
                "rows_now": tally.would_be_taken,
                "coins_now": tally.coins,
            }
            click.echo(confirming.propose(digest, whole, about, reason, actor_of(name)))
            code = min(code, SOME)
    sys.exit(code)


def _read(source: "Source", scratch: "Scratch", stop: "_Stop") -> None:
    """The first time: is it a file of rows at all, and which references has it? Raises Nothing."""
    from shared.importing import Unreadable

    try:
        last = None
        with _shown(source.rows(), "Reading", source.size) as rows:
            for last in _until(stop, rows):
                scratch.name(last.reference, last.line)
    except (Unreadable, OSError, sqlite3.Error) as error:
        raise Nothing(_words(error)) from None
    if last is None:
        raise Nothing("The file has no rows")


def _whole(source: "Source", scratch: "Scratch", stop: "_Stop") -> "Contents":
    """All that the file asks for: what people propose and confirm. Raises Unavailable."""
    from shared import importing

    with _shown(source.rows(), "Checking", source.size) as rows:
        return importing.contents(_until(stop, rows), scratch)


def _until(stop: "_Stop", rows: "Iterable[Row]") -> "Iterator[Row]":
    for row in rows:
        yield row
        if stop.is_set():
            click.echo("Stopped. Nothing was taken.", err=True)
            sys.exit(stop.status)


def _go(
    results: "Iterator[Result]", tally: "_Tally", source: "Source", report: Path | None, stop: "_Stop"
) -> str | None:
    """The second time: row by row. Why it ended before the end of the file, if it did."""
    from shared.errors import Unavailable
    from shared.importing import Unreadable, report_to

    line = 0
    try:
        with report_to(report) as write, _shown(results, "Importing", source.size) as shown:
            for result in shown:
                line = result.row.line
                tally.count(result)
                write(result)
                if stop.is_set():
                    return f"Stopped after line {line}."
    except (Unavailable, Unreadable, OSError, sqlite3.Error) as error:
        return f"Stopped after line {line}: {_words(error)}."
    return None


class _Stop(Event):
    """Somebody asked for the end; `status` is the exit status that says so to a shell."""

    status = 0


class _Tally:
    """What was done so far, and how it is told."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._rows: Counter[str] = Counter()
        self._coins = 0
        self.stopped: str | None = None

    @property
    def would_be_taken(self) -> int:
        """Rows."""
        from shared.importing import Outcome

        return self._rows[Outcome.WOULD_BE_TAKEN]

    @property
    def coins(self) -> int:
        """Of all rows that would be taken, or were."""
        return self._coins

    def count(self, result: "Result") -> None:
        self._rows[result.outcome] += 1
        self._coins += result.coins
        if result.error:
            _clear_bar()
            say(f"line {result.row.line}: {result.error}")

    def end(self) -> int:
        """Tell the sums; the exit status."""
        from shared.importing import Outcome
        from shared.money import coins_to_paise, rupees_text
        from shared.settings import settings

        rupees = rupees_text(coins_to_paise(self._coins, settings().coin_value_paise))
        done = Outcome.WOULD_BE_TAKEN if self._dry_run else Outcome.TAKEN
        parts = [f"{self._rows[outcome]:,} {outcome}" for outcome in (done, Outcome.BEFORE, Outcome.REFUSED)]
        click.echo(f"{', '.join(parts)}; {self._coins:,} coins, {rupees}")
        if self._dry_run:
            click.echo("Nothing was changed. Limits per day and month are not foretold.")
        if self.stopped:
            click.echo(self.stopped if self._dry_run else f"{self.stopped} {GOES_ON}", err=True)
        if not self._rows[done] + self._rows[Outcome.BEFORE]:
            return NONE
        return SOME if self.stopped or self._rows[Outcome.REFUSED] else ALL


def _words(error: Exception) -> str:
    from shared import causes
    from shared.errors import PayoutsError, SettingsError

    if isinstance(error, PayoutsError) and not isinstance(error, SettingsError):
        return causes.sentence(error)
    return str(error)


@contextmanager
def _shown(items: "Iterable[Any]", label: str, size: int) -> Iterator[Iterator[Any]]:
    """The items, with a bar on a terminal that tells how much of the file they came from."""
    with click.progressbar(
        length=size,
        label=label,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=size // 500,
    ) as bar:

        def moving() -> Iterator[Any]:
            for item in items:
                row: Row = getattr(item, "row", item)
                bar.update(row.end - bar.pos)
                yield item

        yield moving()


def _clear_bar() -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)


@contextmanager
def _stoppable() -> Iterator["_Stop"]:
    """Ctrl-C, or SIGTERM, lets the row in hand be finished; a second Ctrl-C does not wait for that."""
    asked = _Stop()

    def ask(number: int, _frame: object) -> None:
        asked.status = 128 + number
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quietly() -> Iterator[None]:
    """A log line for each row would hide what is told; what goes wrong is still said, beside it."""
    import structlog

    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


COMMANDS = (import_,)
