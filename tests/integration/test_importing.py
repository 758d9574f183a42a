"""`payouts import`: every good row is taken once, whatever the file and whatever happens meanwhile."""

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

from sandbox.processes import wait_until
from shared import blocks, db
from shared.cli.token_file import VARIABLE
from tests.integration.app import BATCH, GOOD, WITHDRAW, assert_refused
from tests.shell import invoke, token_of
from tests.world import World

HEADER = "user_id,amount,upi_id,reference"


class Done(NamedTuple):
    exit_code: int
    output: str


def payouts(*words: object) -> Done:
    """What it says. An API that was in this process before has set up its log lines for good: they are left out."""
    done = invoke(*words)
    lines = done.output.splitlines(keepends=True)
    return Done(done.exit_code, "".join(line for line in lines if not line.startswith("{")))


@pytest.fixture
def prizes(tmp_path: Path) -> Path:
    return tmp_path / "prizes.csv"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def row(number: int, amount: int = 500, **about: str) -> str:
    known = {"user_id": f"user{number}", "upi_id": "user@okaxis", "reference": f"prize-{number}"} | about
    return f"{known['user_id']},{amount},{known['upi_id']},{known['reference']}"


def people(world: World, number: int, coins: int = 500) -> list[str]:
    """So many users with coins, and a row for each."""
    for n in range(number):
        world.credit(f"user{n}", coins)
    return [row(n) for n in range(number)]


def report(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def count(world: World) -> int:
    return world.sql("SELECT count(*) AS n FROM withdrawals")[0].n


# --- what is taken


def test_each_row_is_taken_in_the_operators_name(world: World, prizes: Path) -> None:
    done = payouts("import", write(prizes, *people(world, 3)), "--as", "asha")
    assert (done.exit_code, done.output) == (
        0,
        "3 taken, 0 taken before, 0 refused; 1,500 coins, ₹150.00\n",
    )
    assert [world.balance(f"user{n}") for n in range(3)] == [0, 0, 0]
    actors = world.sql("SELECT DISTINCT actor FROM withdrawal_events")
    assert [found.actor for found in actors] == ["operator:asha"]


def test_the_same_file_again_takes_nothing(world: World, prizes: Path) -> None:
    write(prizes, *people(world, 3, coins=5000))
    payouts("import", prizes)
    again = payouts("import", prizes)
    assert (again.exit_code, again.output) == (0, "0 taken, 3 taken before, 0 refused; 0 coins, ₹0.00\n")
    assert world.balance("user0") == 4500


def test_a_bad_row_is_told_by_its_line_and_stops_nobody(world: World, prizes: Path, tmp_path: Path) -> None:
    good = people(world, 3)
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
    done = payouts("import", write(prizes, good[0], *bad, good[1], good[2]), "--report", listed)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "line 3: Invalid UPI ID format: A UPI id looks like user@okhdfcbank",
        "line 4: Withdrawal amount too low: Minimum withdrawal is 100 coins",
        "line 5: User account not found: No wallet exists for this user",
        "line 6: Invalid amount format: amount must be a whole number of coins",
        "line 7: user_id is required: user_id is a text of 1 to 500 characters, not of blanks alone",
        "line 8: reference is required: reference is a text of 1 to 200 characters, not of blanks alone",
        "line 9: Wrong number of cells: A row has as many cells as the header",
        "line 10: Insufficient coin balance: This needs more coins than the 500 that you have",
        "3 taken, 0 taken before, 8 refused; 1,500 coins, ₹150.00",
    ]
    rows = report(listed)
    assert list(rows[0]) == ["line", "reference", "user_id", "result", "withdrawal_id", "error"]
    assert [found["line"] for found in rows] == [str(n) for n in range(2, 13)]
    taken = [found for found in rows if found["result"] == "taken"]
    assert [found["reference"] for found in taken] == ["prize-0", "prize-1", "prize-2"]
    ids = {str(found.id) for found in world.sql("SELECT id FROM withdrawals")}
    assert {found["withdrawal_id"] for found in taken} == ids
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
def test_a_row_is_refused_in_the_words_of_the_api(
    world: World, client: FlaskClient, prizes: Path, body: dict[str, Any]
) -> None:
    world.credit(coins=2000 if body["amount"] == "2001" else 200_000)
    told = client.post(WITHDRAW, json=body).get_json()
    done = payouts("import", write(prizes, f"{body['user_id']},{body['amount']},{body['upi_id']},r"))
    assert done.output.splitlines()[0] == f"line 2: {told['error']}: {told['details']}"
    assert done.exit_code == 2


def test_a_mended_file_takes_what_was_refused_and_nothing_twice(world: World, prizes: Path) -> None:
    good = people(world, 2, coins=5000)
    assert payouts("import", write(prizes, good[0], row(1, upi_id="typing error"))).exit_code == 1
    mended = payouts("import", write(prizes, *good))
    assert (mended.exit_code, mended.output.split(";")[0]) == (0, "1 taken, 1 taken before, 0 refused")
    assert [world.balance(f"user{n}") for n in range(2)] == [4500, 4500]


def test_a_reference_with_other_content_is_refused(world: World, prizes: Path) -> None:
    payouts("import", write(prizes, *people(world, 1, coins=5000)))
    for other in (row(0, amount=600), row(0, upi_id="else@okaxis")):
        for option in ([], ["--dry-run"]):
            done = payouts("import", write(prizes, other), *option)
            assert done.exit_code == 2
            assert "line 2: Reference already used: It was imported before with another" in done.output
    assert world.balance("user0") == 4500


def test_a_reference_twice_in_the_file_takes_neither_row(world: World, prizes: Path) -> None:
    rows = people(world, 3, coins=5000)
    # The same reference to whoever reads it: blanks, and é written as one letter or as two.
    twins = [row(0, reference="caf\u00e9"), row(1, reference=" cafe\u0301 ")]
    for option in (["--dry-run"], []):
        done = payouts("import", write(prizes, twins[0], rows[2], twins[1]), *option)
        assert done.exit_code == 1
        assert done.output.splitlines()[:2] == [
            "line 2: Reference is not unique: Line 4 has the same reference",
            "line 4: Reference is not unique: Line 2 has the same reference",
        ]
    assert [world.balance(f"user{n}") for n in range(3)] == [5000, 5000, 4500]


@pytest.mark.failure(7)
def test_what_an_app_used_as_a_key_is_no_reference_and_the_reverse(
    world: World, client: FlaskClient, prizes: Path
) -> None:
    world.credit("user0", 5000)
    body = {"user_id": "user0", "amount": 500, "upi_id": "user@okaxis"}
    client.post(WITHDRAW, json=body, headers={"Idempotency-Key": "alone"})
    client.post(BATCH, json={"items": [body]}, headers={"Idempotency-Key": "many"})
    write(prizes, *(row(0, reference=used) for used in ("alone", "many", "0", "import", "many 0")))
    for option in (["--dry-run"], []):
        done = payouts("import", prizes, *option)
        assert done.output.splitlines()[:2] == [
            f"line {line}: Reference already used: An app used it as its Idempotency-Key for this user"
            for line in (2, 3)
        ]
    assert count(world) == 5 and world.balance("user0") == 2500
    world.sql("DELETE FROM idempotent_requests")
    for key in ("0", "import"):
        answer = client.post(WITHDRAW, json=body, headers={"Idempotency-Key": key})
        assert_refused(answer, 422, "Idempotency-Key already used")
    # A header loses the blanks around it; a blank inside makes it no key.
    assert client.post(WITHDRAW, json=body, headers={"Idempotency-Key": " import 0"}).status_code == 400


# --- the file


def test_columns_in_any_order_a_bom_crlf_and_blank_lines(world: World, prizes: Path) -> None:
    people(world, 2)
    rows = ["prize-0,user@okaxis,500,user0", "", '"prize, ""1""",user@okaxis,500,user1']
    written = "\r\n".join(["\ufeff reference ,\u200bupi_id,amount,user_id", *rows])
    prizes.write_bytes(b"\xef\xbb\xbf" + written.encode())
    assert payouts("import", prizes).output.startswith("2 taken, 0 taken before, 0 refused")
    keys = {found.idempotency_key for found in world.sql("SELECT idempotency_key FROM withdrawals")}
    assert keys == {" import prize-0", ' import prize, "1"'}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The file has no header"),
        (b"\xef\xbb\xbf", "The file has no header"),
        (b"\n\n", "The file has no header"),
        (HEADER.encode(), "The file has no rows"),
        (HEADER.encode() + b"\n\n\n", "The file has no rows"),
        (b"user_id,amount,upi_id\n", "The column reference is missing"),
        (f"{HEADER},note\n".encode(), "There is no column 'note'"),
        (f"{HEADER},\n".encode(), "There is no column ''"),
        (f"{HEADER},amount\n".encode(), "The column amount stands twice"),
        (f"\n{HEADER}\n{row(0)}".encode(), "Its first line is empty"),
        (HEADER.replace(",", ";").encode(), "The columns are separated by semicolons"),
        (HEADER.replace(",", "\t").encode(), "The columns are separated by tabs"),
        (HEADER.replace("user_id", "User ID").encode(), "The column user_id is written in another way"),
        (HEADER.replace("upi_id", "upi id").encode(), "The column upi_id is written in another way"),
        (HEADER.encode("utf-16"), "It is UTF-16: save it as CSV in UTF-8"),
        (HEADER.encode("utf-16-be"), "The file is not UTF-8"),
        (f'{HEADER}\n{row(0)}\n"user1,500,a@b'.encode(), "The file is not CSV: Line 3"),
        (f'{HEADER}\n{row(0)}\n\n"u"ser1,500,a@b,c\n'.encode(), "The file is not CSV: Line 4"),
        (f"{HEADER}\n{row(0)}\n{'x' * 10_001}".encode(), "Line 3 has more than 10000 characters"),
        (f'{HEADER}\n{row(0)}\n"{(chr(10) + "x" * 9000) * 20}'.encode(), "The file is not CSV: Line 3"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_what_cannot_be_read_takes_nothing(
    world: World, prizes: Path, content: bytes, words: str, option: list[str]
) -> None:
    world.credit("user0", 500)
    prizes.write_bytes(content)
    done = payouts("import", prizes, *option)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert count(world) == 0


def test_no_file_a_directory_and_a_pipe_are_told(world: World, prizes: Path, tmp_path: Path) -> None:
    for given in (prizes, tmp_path):
        assert payouts("import", given).exit_code == 2
    reader, writer = os.pipe()
    os.close(writer)
    done = payouts("import", f"/dev/fd/{reader}")
    os.close(reader)
    assert done.exit_code == 2 and "Give a file, not a pipe" in done.output


def test_without_settings_nothing_is_done(
    world: World, prizes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(prizes, *people(world, 1))
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "none")
    world.forget_settings()
    assert payouts("import", prizes).exit_code == 2
    monkeypatch.delenv("MIN_WITHDRAWAL_COINS")
    world.forget_settings()


@pytest.mark.parametrize(
    "reference", ["नमस्ते-१", "🪙" * 100, "o'hare; DROP TABLE", "\u202eevil", '"quoted"', "%s {0}"]
)
def test_odd_but_good_references_are_taken_once(
    world: World, prizes: Path, reference: str, tmp_path: Path
) -> None:
    world.credit("उपयोगकर्ता", 5000)
    with prizes.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER.split(","), ["उपयोगकर्ता", "500", "user@okaxis", reference]])
    for words in ("1 taken, 0", "0 taken, 1"):
        assert payouts("import", prizes, "--report", tmp_path / "report.csv").output.startswith(words)
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
def test_a_row_with_odd_bytes_is_refused_and_the_next_is_taken(
    world: World, prizes: Path, tmp_path: Path, cells: bytes, option: list[str]
) -> None:
    people(world, 2)
    prizes.write_bytes(f"{HEADER}\n".encode() + cells + b"\n" + row(1).encode())
    done = payouts("import", prizes, "--report", tmp_path / "report.csv", *option)
    assert done.exit_code == 1, done.output
    results = [found["result"] for found in report(tmp_path / "report.csv")]
    assert results == ["refused", "would be taken" if option else "taken"]
    assert done.output.startswith("line 2: ")
    assert world.balance("user0") == 500 and count(world) == (0 if option else 1)


def test_no_cell_of_the_report_is_a_formula(world: World, prizes: Path, tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)"]
    for name in names:
        world.credit(name, 500)
    with prizes.open("w", newline="") as file:
        rows = [[name, "500", "user@okaxis", name] for name in names]
        csv.writer(file).writerows([HEADER.split(","), *rows])
    listed = tmp_path / "report.csv"
    assert payouts("import", prizes, "--report", listed).exit_code == 0
    assert [(found["user_id"], found["reference"]) for found in report(listed)] == [
        (f"'{n}", f"'{n}") for n in names
    ]


def test_the_report_does_not_overwrite_the_file(world: World, prizes: Path) -> None:
    before = write(prizes, *people(world, 1)).read_bytes()
    assert payouts("import", prizes, "--report", prizes).exit_code == 2
    assert prizes.read_bytes() == before and count(world) == 0


def test_a_report_that_cannot_be_written_takes_nothing(world: World, prizes: Path) -> None:
    write(prizes, *people(world, 1))
    assert payouts("import", prizes, "--report", "/proc/report.csv").exit_code == 2
    assert count(world) == 0


# --- the rehearsal


def test_a_rehearsal_says_what_would_be_taken_and_changes_nothing(
    world: World, prizes: Path, tmp_path: Path
) -> None:
    people(world, 2, coins=1200)
    payouts("import", write(prizes, row(0)))
    before = world.sql("SELECT * FROM coin_transactions"), world.sql("SELECT * FROM wallets ORDER BY user_id")
    rows = [
        row(0),
        row(0, reference="second"),
        row(0, reference="third"),  # 1200 - 500 - 500 < 500
        row(0, amount=200, reference="fourth"),
        row(7),
        row(1, amount=1200),
    ]
    done = payouts("import", write(prizes, *rows), "--dry-run", "--report", tmp_path / "report.csv")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "line 4: Insufficient coin balance: This needs more coins than the 200 that you have",
        "line 6: User account not found: No wallet exists for this user",
        "3 would be taken, 1 taken before, 2 refused; 1,900 coins, ₹190.00",
        "Nothing was changed. Limits per day and month are not foretold.",
    ]
    after = world.sql("SELECT * FROM coin_transactions"), world.sql("SELECT * FROM wallets ORDER BY user_id")
    assert after == before and count(world) == 1
    rehearsed = [found["result"] for found in report(tmp_path / "report.csv")]
    payouts("import", prizes, "--report", tmp_path / "report.csv")
    done_then = [found["result"] for found in report(tmp_path / "report.csv")]
    assert [words.replace("would be taken", "taken") for words in rehearsed] == done_then


def test_a_dry_run_foretells_frozen_wallets_and_blocked_payees_in_the_same_words(
    world: World, prizes: Path
) -> None:
    rows = people(world, 5, coins=5000)
    with db.transaction() as session:
        blocks.freeze(session, "user0", reason="many phones", actor="operator:asha")
        blocks.add(session, "user@okaxis", reason="reported", actor="operator:asha")
        blocks.add(session, "@ybl", reason="reported", actor="operator:asha")
    rows[2] = row(2, upi_id="any@YBL")
    rows[3] = row(3, upi_id="other@okaxis")
    rows[4] = row(4, amount=5001)
    write(prizes, *rows)
    foretold, told = payouts("import", prizes, "--dry-run"), payouts("import", prizes)
    assert told.output.splitlines()[:-1] == foretold.output.splitlines()[:-2] == [
        "line 2: Wallet frozen: Withdrawals from this account are stopped; please ask us",
        "line 3: UPI ID not accepted: We do not pay to this UPI id; please use another",
        "line 4: UPI ID not accepted: We do not pay to this UPI id; please use another",
        "line 6: Insufficient coin balance: This needs more coins than the 5000 that you have",
    ]  # fmt: skip
    for said in (foretold.output, payouts("import", "--help").output):
        assert "Limits per day and month are not foretold." in " ".join(said.split())


# --- what happens meanwhile


def test_a_database_that_goes_away_stops_it_and_the_same_command_goes_on(
    world: World, prizes: Path, tmp_path: Path
) -> None:
    write(prizes, *people(world, 4))
    with db.transaction() as session:
        session.execute(text("SELECT FROM wallets WHERE user_id = 'user1' FOR UPDATE"))  # busy for 3 s
        done = payouts("import", prizes, "--report", tmp_path / "report.csv")
    assert done.exit_code == 1
    assert "Stopped after line 2: Service unavailable: The database is busy." in done.output
    assert "the same command goes on safely" in done.output
    assert [found["result"] for found in report(tmp_path / "report.csv")] == ["taken"]
    assert payouts("import", prizes).output.startswith("3 taken, 1 taken before, 0 refused")
    assert [world.balance(f"user{n}") for n in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_without_the_database_nothing_is_done(
    world: World, prizes: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    write(prizes, *people(world, 1))
    world.point_database_at_nothing(monkeypatch)
    done = payouts("import", prizes, *option)
    world.point_database_back(monkeypatch)
    assert done.exit_code == 2 and "The database cannot be reached" in done.output
    assert count(world) == 0


def test_a_file_that_is_written_to_meanwhile_stops_it(world: World, prizes: Path) -> None:
    from shared.importing import Scratch, Source, Unreadable, take
    from shared.importing.wishes import AT_ONCE

    [good] = people(world, 1, coins=10**6)
    write(prizes, good, *(row(0, reference=f"another-{n}") for n in range(AT_ONCE)))
    with prizes.open("rb") as file, Scratch() as scratch:
        source = Source(file)
        for found in source.rows():
            scratch.name(found.reference, found.line)
        results = take(source.rows(), scratch, actor="operator:asha", most=None)
        next(results)
        with prizes.open("a") as end:
            end.write(row(0, reference="sneaked-in"))
        with pytest.raises(Unreadable, match="changed"):
            list(results)
    assert count(world) == AT_ONCE


@contextmanager
def started(*words: object, stderr: Any = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "shared.cli", *map(str, words)]
    env = os.environ | {VARIABLE: token_of("root")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_each_row_is_taken_once(
    world: World, prizes: Path, tmp_path: Path, number: signal.Signals
) -> None:
    world.credit("user0", 3000 * 100)
    write(prizes, *(row(0, amount=100, reference=f"prize-{n}") for n in range(3000)))
    listed = tmp_path / "report.csv"
    with started("import", prizes, "--report", listed) as process:
        wait_until(lambda: count(world) >= 50, 30, lambda: AssertionError("nothing was taken"))
        process.send_signal(number)
        code = process.wait(30)
    first = count(world)
    assert 50 <= first < 3000
    if number == signal.SIGKILL:
        assert not listed.exists()
    else:  # the row in hand was finished, and the report says all that was done
        assert code == 128 + number and len(report(listed)) == first
    again = payouts("import", prizes)
    assert again.output.startswith(f"{3000 - first:,} taken, {first:,} taken before, 0 refused")
    assert count(world) == 3000 and world.balance("user0") == 0


def test_two_at_once_take_each_row_once(world: World, prizes: Path) -> None:
    world.credit("user0", 400 * 500)
    write(prizes, *(row(0, amount=100, reference=f"prize-{n}") for n in range(400)))
    with started("import", prizes) as one, started("import", prizes) as other:
        told = [process.communicate(timeout=60)[0] for process in (one, other)]
    assert [process.returncode for process in (one, other)] == [0, 0], told
    assert sum(int(words.split(" taken")[0]) for words in told) == count(world) == 400
    assert world.balance("user0") == 400 * 400


def test_a_long_file_needs_little_memory(world: World, prizes: Path) -> None:
    """20,000 rows of 20,000 users who have no wallet, twice over the file; Python alone has some 90 MB."""
    write(prizes, *(row(n, reference=f"{'prize' * 30}-{n}") for n in range(20_000)))
    with started("import", prizes, "--dry-run") as process:
        most, watched = 0, psutil.Process(process.pid)
        assert process.stdout
        for _ in process.stdout:
            most = max(most, watched.memory_info().rss)
        assert process.wait(30) == 2
    assert most < 150 * 2**20, f"{most / 2**20:.0f} MB"


def test_a_bar_is_shown_on_a_terminal_only(world: World, prizes: Path) -> None:
    write(prizes, *people(world, 3))
    ours, theirs = pty.openpty()
    with started("import", prizes, "--dry-run", stderr=theirs) as process:
        os.close(theirs)
        told, _ = process.communicate(timeout=30)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "Importing" in shown and "100%" in shown and "%" not in told
    with started("import", prizes, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=30)[1] == ""


def test_a_terminal_that_knows_no_rupee_sign_ends_no_import(
    world: World, prizes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    write(prizes, *people(world, 2), row(7, user_id="उपयोगकर्ता"))
    with started("import", prizes) as process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "2 taken, 0 taken before, 1 refused; 1,000 coins, ?100.00" in told


def test_ctrl_c_ends_a_command_with_130_and_without_a_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        with monkeypatch.context() as patch:
            patch.setenv("DATABASE_URL", url)
            with started("migrate", "--wait", "60", stderr=subprocess.PIPE) as process:
                silent.accept()  # it waits now
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped." in told and "Traceback" not in told
