"""`payouts import`: every good row is imported once, whatever the file contains and whatever
interrupts the import.
"""

import csv
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from cli.token_file import ENVIRONMENT_VARIABLE
from sandbox.processes import wait_until
from shared.db.transactions import transaction
from shared.withdrawals import blocks
from tests.support.api import BATCH, GOOD, WITHDRAW, assert_refused
from tests.support.shell import invoke, token_of
from tests.support.world import World

HEADER = "user_id,amount,upi_id,reference"


class Completed(NamedTuple):
    exit_code: int
    output: str


def payouts(*arguments: object) -> Completed:
    """Run a command. Log lines, which an API earlier in this process may have turned on, are left out."""
    result = invoke(*arguments)
    lines = result.output.splitlines(keepends=True)
    return Completed(result.exit_code, "".join(line for line in lines if not line.startswith("{")))


@pytest.fixture
def prize_file(tmp_path: Path) -> Path:
    return tmp_path / "prizes.csv"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def row(number: int, amount: int = 500, **about: str) -> str:
    cells = {"user_id": f"user{number}", "upi_id": "user@okaxis", "reference": f"prize-{number}"} | about
    return f"{cells['user_id']},{amount},{cells['upi_id']},{cells['reference']}"


def credit_users(world: World, number: int, coins: int = 500) -> list[str]:
    """Credit `number` users; returns a row for each."""
    for n in range(number):
        world.credit(f"user{n}", coins)
    return [row(n) for n in range(number)]


def report(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def count_withdrawals(world: World) -> int:
    return world.sql("SELECT count(*) AS n FROM withdrawals")[0].n


# --- the import


def test_each_row_is_imported_in_the_name_of_the_operator(world: World, prize_file: Path) -> None:
    done = payouts("import", write(prize_file, *credit_users(world, 3)), "--as", "asha")
    assert (done.exit_code, done.output) == (
        0,
        "3 imported, 0 already imported, 0 rejected; 1,500 coins, ₹150.00\n",
    )
    assert [world.balance(f"user{n}") for n in range(3)] == [0, 0, 0]
    actors = world.sql("SELECT DISTINCT actor FROM withdrawal_events")
    assert [stored.actor for stored in actors] == ["operator:asha"]


def test_the_same_file_again_imports_nothing(world: World, prize_file: Path) -> None:
    write(prize_file, *credit_users(world, 3, coins=5000))
    payouts("import", prize_file)
    again = payouts("import", prize_file)
    assert (again.exit_code, again.output) == (
        0,
        "0 imported, 3 already imported, 0 rejected; 0 coins, ₹0.00\n",
    )
    assert world.balance("user0") == 4500


def test_a_bad_row_is_reported_by_line_and_does_not_stop_the_import(
    world: World, prize_file: Path, tmp_path: Path
) -> None:
    good = credit_users(world, 3)
    bad = [
        row(9, upi_id="no-upi"),
        row(9, amount=50),
        row(8),
        "user9,many,user@okaxis,x",
        ",500,user@okaxis,y",
        "user9,500,user@okaxis,",
        "user9,500",
        row(1, amount=501, reference="more-than-there-is"),
    ]
    listed = tmp_path / "report.csv"
    done = payouts("import", write(prize_file, good[0], *bad, good[1], good[2]), "--report", listed)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "line 3: Invalid UPI ID format: Use a UPI id such as user@okhdfcbank",
        "line 4: Withdrawal amount too low: Minimum withdrawal is 100 coins",
        "line 5: User account not found: No wallet exists for this user",
        "line 6: Invalid amount format: amount must be a whole number of coins",
        "line 7: user_id is required: Send user_id as a string of 1 to 500 characters, not only spaces",
        "line 8: reference is required: Send reference as a string of 1 to 200 characters, not only spaces",
        "line 9: Wrong number of cells: A row must have as many cells as the header",
        "line 10: Insufficient coin balance: The balance is 500 coins",
        "3 imported, 0 already imported, 8 rejected; 1,500 coins, ₹150.00",
    ]
    rows = report(listed)
    assert list(rows[0]) == ["line", "reference", "user_id", "result", "withdrawal_id", "error"]
    assert [entry["line"] for entry in rows] == [str(n) for n in range(2, 13)]
    imported = [entry for entry in rows if entry["result"] == "imported"]
    assert [entry["reference"] for entry in imported] == ["prize-0", "prize-1", "prize-2"]
    ids = {str(stored.id) for stored in world.sql("SELECT id FROM withdrawals")}
    assert {entry["withdrawal_id"] for entry in imported} == ids
    assert rows[4]["error"].startswith("Invalid amount format")


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "amount": "50"},
        {**GOOD, "upi_id": "@bank"},
        {**GOOD, "user_id": "nobody"},
        {**GOOD, "amount": "100001"},
        {**GOOD, "amount": "2001"},
        {"user_id": "x" * 501, "amount": "1e3", "upi_id": "-"},
    ],
)
def test_a_row_is_rejected_with_the_errors_of_the_api(
    world: World, client: FlaskClient, prize_file: Path, body: dict[str, Any]
) -> None:
    world.credit(coins=2000 if body["amount"] == "2001" else 200_000)
    error = client.post(WITHDRAW, json=body).get_json()
    done = payouts("import", write(prize_file, f"{body['user_id']},{body['amount']},{body['upi_id']},r"))
    assert done.output.splitlines()[0] == f"line 2: {error['error']}: {error['details']}"
    assert done.exit_code == 2


def test_a_corrected_file_imports_the_rejected_rows_and_nothing_twice(world: World, prize_file: Path) -> None:
    good = credit_users(world, 2, coins=5000)
    assert payouts("import", write(prize_file, good[0], row(1, upi_id="typing error"))).exit_code == 1
    corrected = payouts("import", write(prize_file, *good))
    assert (corrected.exit_code, corrected.output.split(";")[0]) == (
        0,
        "1 imported, 1 already imported, 0 rejected",
    )
    assert [world.balance(f"user{n}") for n in range(2)] == [4500, 4500]


def test_a_reference_with_other_content_is_rejected(world: World, prize_file: Path) -> None:
    payouts("import", write(prize_file, *credit_users(world, 1, coins=5000)))
    for other in (row(0, amount=600), row(0, upi_id="else@okaxis")):
        for option in ([], ["--dry-run"]):
            done = payouts("import", write(prize_file, other), *option)
            assert done.exit_code == 2
            assert "line 2: Reference already used: It was imported before with another" in done.output
    assert world.balance("user0") == 4500


def test_a_duplicate_reference_imports_neither_row(world: World, prize_file: Path) -> None:
    rows = credit_users(world, 3, coins=5000)
    # These look the same: spaces around it, and é as one character or as two.
    twins = [row(0, reference="caf\u00e9"), row(1, reference=" cafe\u0301 ")]
    for option in (["--dry-run"], []):
        done = payouts("import", write(prize_file, twins[0], rows[2], twins[1]), *option)
        assert done.exit_code == 1
        assert done.output.splitlines()[:2] == [
            "line 2: Reference is not unique: Line 4 has the same reference",
            "line 4: Reference is not unique: Line 2 has the same reference",
        ]
    assert [world.balance(f"user{n}") for n in range(3)] == [5000, 5000, 4500]


@pytest.mark.failure(7)
def test_an_apps_idempotency_key_cannot_be_used_as_a_reference_nor_the_reverse(
    world: World, client: FlaskClient, prize_file: Path
) -> None:
    world.credit("user0", 5000)
    body = {"user_id": "user0", "amount": 500, "upi_id": "user@okaxis"}
    client.post(WITHDRAW, json=body, headers={"Idempotency-Key": "alone"})
    client.post(BATCH, json={"items": [body]}, headers={"Idempotency-Key": "many"})
    write(prize_file, *(row(0, reference=used) for used in ("alone", "many", "0", "import", "many 0")))
    for option in (["--dry-run"], []):
        done = payouts("import", prize_file, *option)
        assert done.output.splitlines()[:2] == [
            f"line {line}: Reference already used: An app used it as its Idempotency-Key for this user"
            for line in (2, 3)
        ]
    assert count_withdrawals(world) == 5 and world.balance("user0") == 2500
    world.sql("DELETE FROM idempotent_requests")
    for key in ("0", "import"):
        answer = client.post(WITHDRAW, json=body, headers={"Idempotency-Key": key})
        assert_refused(answer, 422, "Idempotency-Key already used")
    # A header loses its surrounding spaces; a space inside makes the key invalid.
    assert client.post(WITHDRAW, json=body, headers={"Idempotency-Key": " import 0"}).status_code == 400


# --- the file


def test_columns_in_any_order_a_bom_crlf_and_blank_lines_are_accepted(world: World, prize_file: Path) -> None:
    credit_users(world, 2)
    rows = ["prize-0,user@okaxis,500,user0", "", '"prize, ""1""",user@okaxis,500,user1']
    written = "\r\n".join(["\ufeff reference ,\u200bupi_id,amount,user_id", *rows])
    prize_file.write_bytes(b"\xef\xbb\xbf" + written.encode())
    assert payouts("import", prize_file).output.startswith("2 imported, 0 already imported, 0 rejected")
    keys = {stored.idempotency_key for stored in world.sql("SELECT idempotency_key FROM withdrawals")}
    assert keys == {" import prize-0", ' import prize, "1"'}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file has no header"),
        (b"\xef\xbb\xbf", "The file has no header"),
        (b"\n\n", "The file has no header"),
        (HEADER.encode(), "The file has no rows"),
        (HEADER.encode() + b"\n\n\n", "The file has no rows"),
        (b"user_id,amount,upi_id\n", "The column reference is missing"),
        (f"{HEADER},note\n".encode(), "There is no column 'note'"),
        (f"{HEADER},\n".encode(), "There is no column ''"),
        (f"{HEADER},amount\n".encode(), "The column amount appears twice"),
        (f"\n{HEADER}\n{row(0)}".encode(), "Its first line is empty"),
        (HEADER.replace(",", ";").encode(), "The columns are separated by semicolons"),
        (HEADER.replace(",", "\t").encode(), "The columns are separated by tabs"),
        (HEADER.replace("user_id", "User ID").encode(), "The column user_id is spelled differently"),
        (HEADER.replace("upi_id", "upi id").encode(), "The column upi_id is spelled differently"),
        (HEADER.encode("utf-16"), "It is UTF-16. Save it as CSV in UTF-8"),
        (HEADER.encode("utf-16-be"), "The file is not UTF-8"),
        (f'{HEADER}\n{row(0)}\n"user1,500,a@b'.encode(), "The file is not CSV: Line 3"),
        (f'{HEADER}\n{row(0)}\n\n"u"ser1,500,a@b,c\n'.encode(), "The file is not CSV: Line 4"),
        (f"{HEADER}\n{row(0)}\n{'x' * 10_001}".encode(), "Line 3 has more than 10000 characters"),
        (f'{HEADER}\n{row(0)}\n"{(chr(10) + "x" * 9000) * 20}'.encode(), "The file is not CSV: Line 3"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_an_unreadable_file_imports_nothing(
    world: World, prize_file: Path, content: bytes, message: str, option: list[str]
) -> None:
    world.credit("user0", 500)
    prize_file.write_bytes(content)
    done = payouts("import", prize_file, *option)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert count_withdrawals(world) == 0


def test_a_missing_file_a_directory_and_a_pipe_are_rejected(
    world: World, prize_file: Path, tmp_path: Path
) -> None:
    for given in (prize_file, tmp_path):
        assert payouts("import", given).exit_code == 2
    reader, writer = os.pipe()
    os.close(writer)
    done = payouts("import", f"/dev/fd/{reader}")
    os.close(reader)
    assert done.exit_code == 2 and "Give a file, not a pipe" in done.output


def test_with_invalid_settings_nothing_is_imported(
    world: World, prize_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(prize_file, *credit_users(world, 1))
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "none")
    world.forget_settings()
    assert payouts("import", prize_file).exit_code == 2
    monkeypatch.delenv("MIN_WITHDRAWAL_COINS")
    world.forget_settings()


@pytest.mark.parametrize(
    "reference", ["नमस्ते-१", "🪙" * 100, "o'hare; DROP TABLE", "\u202eevil", '"quoted"', "%s {0}"]
)
def test_unusual_but_valid_references_are_imported_once(
    world: World, prize_file: Path, reference: str, tmp_path: Path
) -> None:
    world.credit("उपयोगकर्ता", 5000)
    with prize_file.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER.split(","), ["उपयोगकर्ता", "500", "user@okaxis", reference]])
    for summary in ("1 imported, 0", "0 imported, 1"):
        assert payouts("import", prize_file, "--report", tmp_path / "report.csv").output.startswith(summary)
    assert report(tmp_path / "report.csv")[0]["reference"] == reference
    assert world.balance("उपयोगकर्ता") == 4500


@pytest.mark.parametrize(
    "cells",
    [
        b"user0,500,user@okaxis,\xff\xfe",
        b"us\xe9r0,500,user@okaxis,a",
        b"user0,500,user@okaxis,a\x00b",
        b'user0,500,user@okaxis,"a\nb"',
        b"user0,\xd9\xa5\xd9\xa0\xd9\xa0,user@okaxis,a",
        b"user0,500,user\xe2\x80\x8b@okaxis,a",
        b"user0," + b"9" * 5000 + b",user@okaxis,a",
        b"user0,500,user@okaxis," + b"a" * 201,
        b"user0,500,user@okaxis," + ("🪙" * 126).encode(),
    ],
)
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_a_row_with_invalid_bytes_is_rejected_and_the_next_imported(
    world: World, prize_file: Path, tmp_path: Path, cells: bytes, option: list[str]
) -> None:
    credit_users(world, 2)
    prize_file.write_bytes(f"{HEADER}\n".encode() + cells + b"\n" + row(1).encode())
    done = payouts("import", prize_file, "--report", tmp_path / "report.csv", *option)
    assert done.exit_code == 1, done.output
    results = [entry["result"] for entry in report(tmp_path / "report.csv")]
    assert results == ["rejected", "would be imported" if option else "imported"]
    assert done.output.startswith("line 2: ")
    assert world.balance("user0") == 500 and count_withdrawals(world) == (0 if option else 1)


def test_no_cell_of_the_report_is_a_formula(world: World, prize_file: Path, tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)"]
    for name in names:
        world.credit(name, 500)
    with prize_file.open("w", newline="") as file:
        rows = [[name, "500", "user@okaxis", name] for name in names]
        csv.writer(file).writerows([HEADER.split(","), *rows])
    listed = tmp_path / "report.csv"
    assert payouts("import", prize_file, "--report", listed).exit_code == 0
    assert [(entry["user_id"], entry["reference"]) for entry in report(listed)] == [
        (f"'{n}", f"'{n}") for n in names
    ]


def test_the_report_does_not_overwrite_the_file(world: World, prize_file: Path) -> None:
    before = write(prize_file, *credit_users(world, 1)).read_bytes()
    assert payouts("import", prize_file, "--report", prize_file).exit_code == 2
    assert prize_file.read_bytes() == before and count_withdrawals(world) == 0


def test_an_unwritable_report_imports_nothing(world: World, prize_file: Path) -> None:
    write(prize_file, *credit_users(world, 1))
    assert payouts("import", prize_file, "--report", "/proc/report.csv").exit_code == 2
    assert count_withdrawals(world) == 0


# --- the dry run


def test_a_dry_run_reports_what_would_be_imported_and_changes_nothing(
    world: World, prize_file: Path, tmp_path: Path
) -> None:
    credit_users(world, 2, coins=1200)
    payouts("import", write(prize_file, row(0)))
    before = world.sql("SELECT * FROM coin_transactions"), world.sql("SELECT * FROM wallets ORDER BY user_id")
    rows = [
        row(0),
        row(0, reference="second"),
        row(0, reference="third"),  # 1200 - 500 - 500 < 500
        row(0, amount=200, reference="fourth"),
        row(7),
        row(1, amount=1200),
    ]
    done = payouts("import", write(prize_file, *rows), "--dry-run", "--report", tmp_path / "report.csv")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "line 4: Insufficient coin balance: The balance is 200 coins",
        "line 6: User account not found: No wallet exists for this user",
        "3 would be imported, 1 already imported, 2 rejected; 1,900 coins, ₹190.00",
        "Nothing was changed. Daily and monthly limits are not checked.",
    ]
    after = world.sql("SELECT * FROM coin_transactions"), world.sql("SELECT * FROM wallets ORDER BY user_id")
    assert after == before and count_withdrawals(world) == 1
    previewed = [entry["result"] for entry in report(tmp_path / "report.csv")]
    payouts("import", prize_file, "--report", tmp_path / "report.csv")
    imported = [entry["result"] for entry in report(tmp_path / "report.csv")]
    assert [outcome.replace("would be imported", "imported") for outcome in previewed] == imported


def test_a_dry_run_predicts_frozen_wallets_and_blocked_payees_in_the_same_words(
    world: World, prize_file: Path
) -> None:
    rows = credit_users(world, 5, coins=5000)
    with transaction() as session:
        blocks.freeze(session, "user0", reason="many phones", actor="operator:asha")
        blocks.add(session, "user@okaxis", reason="reported", actor="operator:asha")
        blocks.add(session, "@ybl", reason="reported", actor="operator:asha")
    rows[2] = row(2, upi_id="any@YBL")
    rows[3] = row(3, upi_id="other@okaxis")
    rows[4] = row(4, amount=5001)
    write(prize_file, *rows)
    preview, imported = payouts("import", prize_file, "--dry-run"), payouts("import", prize_file)
    assert imported.output.splitlines()[:-1] == preview.output.splitlines()[:-2] == [
        "line 2: Wallet frozen: Withdrawals from this account are stopped. Please contact support",
        "line 3: UPI ID not accepted: We cannot pay to this UPI id. Please use another one",
        "line 4: UPI ID not accepted: We cannot pay to this UPI id. Please use another one",
        "line 6: Insufficient coin balance: The balance is 5,000 coins",
    ]  # fmt: skip
    for output in (preview.output, payouts("import", "--help").output):
        assert "Daily and monthly limits are not checked." in " ".join(output.split())


# --- interruptions and concurrent changes


def test_a_lost_database_stops_the_import_and_the_same_command_resumes_it(
    world: World, prize_file: Path, tmp_path: Path
) -> None:
    write(prize_file, *credit_users(world, 4))
    with transaction() as session:
        session.execute(text("SELECT FROM wallets WHERE user_id = 'user1' FOR UPDATE"))  # busy for 3 s
        done = payouts("import", prize_file, "--report", tmp_path / "report.csv")
    assert done.exit_code == 1
    assert "Stopped after line 2: Service unavailable: The database is busy." in done.output
    assert "Run the same command again to continue" in done.output
    assert [entry["result"] for entry in report(tmp_path / "report.csv")] == ["imported"]
    assert payouts("import", prize_file).output.startswith("3 imported, 1 already imported, 0 rejected")
    assert [world.balance(f"user{n}") for n in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_without_the_database_nothing_is_imported(
    world: World, prize_file: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    write(prize_file, *credit_users(world, 1))
    world.point_database_at_nothing(monkeypatch)
    done = payouts("import", prize_file, *option)
    world.point_database_back(monkeypatch)
    assert done.exit_code == 2 and "The database cannot be reached" in done.output
    assert count_withdrawals(world) == 0


def test_a_file_changed_during_the_import_stops_it(world: World, prize_file: Path) -> None:
    from shared.importing import Scratch, Source, Unreadable, import_rows
    from shared.importing.parse import BATCH_ROWS

    [good] = credit_users(world, 1, coins=10**6)
    write(prize_file, good, *(row(0, reference=f"another-{n}") for n in range(BATCH_ROWS)))
    with prize_file.open("rb") as file, Scratch() as scratch:
        source = Source(file)
        for read in source.rows():
            scratch.add_reference(read.reference, read.line)
        results = import_rows(source.rows(), scratch, actor="operator:asha", limits=None)
        next(results)
        with prize_file.open("a") as end:
            end.write(row(0, reference="sneaked-in"))
        with pytest.raises(Unreadable, match="changed"):
            list(results)
    assert count_withdrawals(world) == BATCH_ROWS


@contextmanager
def running_command(*arguments: object, stderr: Any = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    env = os.environ | {ENVIRONMENT_VARIABLE: token_of("root")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_after_an_interruption_each_row_is_imported_once(
    world: World, prize_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    world.credit("user0", 1000 * 100)
    write(prize_file, *(row(0, amount=100, reference=f"prize-{n}") for n in range(1000)))
    listed = tmp_path / "report.csv"
    with running_command("import", prize_file, "--report", listed) as process:
        wait_until(lambda: count_withdrawals(world) >= 50, 30, lambda: AssertionError("nothing was imported"))
        process.send_signal(number)
        code = process.wait(30)
    first = count_withdrawals(world)
    assert 50 <= first < 1000
    if number == signal.SIGKILL:
        assert not listed.exists()
    else:  # the current row was finished, and the report lists everything that was done
        assert code == 128 + number and len(report(listed)) == first
    again = payouts("import", prize_file)
    assert again.output.startswith(f"{1000 - first:,} imported, {first:,} already imported, 0 rejected")
    assert count_withdrawals(world) == 1000 and world.balance("user0") == 0


def test_two_concurrent_imports_import_each_row_once(world: World, prize_file: Path) -> None:
    world.credit("user0", 400 * 500)
    write(prize_file, *(row(0, amount=100, reference=f"prize-{n}") for n in range(400)))
    with running_command("import", prize_file) as first, running_command("import", prize_file) as second:
        outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert sum(int(output.split(" imported")[0]) for output in outputs) == count_withdrawals(world) == 400
    assert world.balance("user0") == 400 * 400


def test_a_long_file_needs_little_memory(world: World, prize_file: Path) -> None:
    """20,000 rows of 20,000 users without a wallet, read twice. Python alone needs about 90 MB."""
    write(prize_file, *(row(n, reference=f"{'prize' * 30}-{n}") for n in range(20_000)))
    with running_command("import", prize_file, "--dry-run") as process:
        peak_bytes = 0
        watched = psutil.Process(process.pid)
        assert process.stdout
        for _ in process.stdout:
            peak_bytes = max(peak_bytes, watched.memory_info().rss)
        assert process.wait(30) == 2
    assert peak_bytes < 150 * 2**20, f"{peak_bytes / 2**20:.0f} MB"


def test_the_progress_bar_appears_only_on_a_terminal(world: World, prize_file: Path) -> None:
    write(prize_file, *credit_users(world, 3))
    ours, theirs = pty.openpty()
    with running_command("import", prize_file, "--dry-run", stderr=theirs) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=30)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "Importing" in shown and "100%" in shown and "%" not in output
    with running_command("import", prize_file, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=30)[1] == ""


def test_a_terminal_without_the_rupee_sign_does_not_stop_the_import(
    world: World, prize_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    write(prize_file, *credit_users(world, 2), row(7, user_id="उपयोगकर्ता"))
    with running_command("import", prize_file) as process:
        output, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 1
        and "2 imported, 0 already imported, 1 rejected; 1,000 coins, ?100.00" in output
    )


def test_ctrl_c_ends_a_command_with_130_and_without_a_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        with monkeypatch.context() as patch:
            patch.setenv("DATABASE_URL", url)
            with running_command("migrate", "--wait", "60", stderr=subprocess.PIPE) as process:
                silent.accept()  # the command is waiting now
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped." in errors and "Traceback" not in errors
