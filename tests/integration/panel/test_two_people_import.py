"""An import is confirmed with its file in hand: for all of its rows, by two people whom it does not pay."""

from collections.abc import Callable
from pathlib import Path

import pytest

from api.app import create_app
from shared import blocks, db
from shared.roles import Role
from tests.integration.panel.person import Person, add_operator
from tests.shell import invoke
from tests.world import World, forget_settings

HEADER = "user_id,amount,upi_id,reference"
SMALL = "user123,500,user@okaxis,one"


@pytest.fixture
def two(panel: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system as it is by default, with two people of finance, one of them known as a user."""
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    forget_settings()
    for name in ("fay", "finn"):
        add_operator(panel, name, Role.FINANCE)
    panel.credit("user123", 5000)
    return panel


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prizes.csv"


def write(file: Path, *rows: str) -> None:
    file.write_text("\n".join([HEADER, *rows]) + "\n")


def payouts(file: Path, *words: str, by: str = "fay") -> str:
    return " ".join(invoke("import", file, *words, by=by).output.split())


def confirmed(world: World, file: Path) -> None:
    assert "Proposed" in payouts(file, "--propose")
    assert "Confirmed" in payouts(file, "--confirm", by="finn")
    assert world.sql("SELECT FROM admin_proposals WHERE outcome = 'confirmed'")


def test_a_file_that_grows_richer_was_confirmed_with_all_of_its_rows(two: World, file: Path) -> None:
    two.credit("frozen", 900)
    with db.transaction() as session:
        blocks.freeze(session, "frozen", reason="many phones", actor="operator:finn")
    write(file, SMALL, "poor,4000,mine@okaxis,two", "frozen,900,mine@okaxis,three", "poor,typo,x,four")
    assert "Proposed: 3 rows, 5,400 coins, whatever the wallets hold now" in payouts(file, "--propose")
    [made] = two.sql("SELECT wanted FROM admin_proposals")
    assert made.wanted == {
        "name": "prizes.csv", "rows": 3, "coins": 5400, "rows_now": 1, "coins_now": 500
    }  # fmt: skip
    finn = Person("finn", create_app()).sign_in()
    for told in (finn.get("/admin/proposals/").text, invoke("proposals", "list").output):
        assert "3 rows, 5,400 coins, whatever the wallets hold now" in told
        assert "1 rows with 500 coins could be taken" in told
    assert "Confirmed: 3 rows, 5,400 coins" in payouts(file, "--confirm", by="finn")
    two.credit("poor", 4000)
    assert payouts(file).endswith("2 taken, 0 taken before, 2 refused; 4,500 coins, ₹450.00")


def test_a_file_of_tomorrows_prizes_is_proposed_today(two: World, file: Path) -> None:
    write(file, "poor,4000,mine@okaxis,two")
    done = invoke("import", file, "--propose", by="fay")
    assert done.exit_code == 1 and "Proposed: 1 rows, 4,000 coins" in done.output
    write(file, "poor,typo,mine@okaxis,two")
    assert invoke("import", file, "--propose", by="fay").exit_code == 2


def test_an_import_takes_no_more_than_was_confirmed(
    two: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "400")
    forget_settings()
    write(file, SMALL, "user123,300,user@okaxis,two", "poor,500,user@okaxis,three")
    confirmed(two, file)
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "100")  # a row that was not good is good now
    forget_settings()
    two.credit("poor", 500)
    told = payouts(file)
    assert "line 4: More than was confirmed: 2 rows and 1,000 coins were confirmed" in told
    assert "2 taken, 0 taken before, 1 refused; 800 coins" in told
    assert "0 taken, 2 taken before, 1 refused; 0 coins" in payouts(file), "to go on starts no new count"
    assert two.balance("poor") == 500


def test_who_confirms_counts_the_same_rows(two: World, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, SMALL, "user123,50,user@okaxis,two")
    assert "Proposed: 1 rows, 500 coins" in payouts(file, "--propose")
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "10")
    forget_settings()
    assert "Not what was proposed" in payouts(file, "--confirm", by="finn")
    assert two.sql("SELECT FROM admin_proposals WHERE outcome IS NOT NULL") == []


def by_account(world: World, name: str) -> str:
    world.sql("UPDATE operators SET user_id = 'player' WHERE name = :n", n=name)
    return "PLAYER,500,new@okaxis,two"


def by_email(world: World, name: str) -> str:
    world.credit("player", 500)
    world.sql("UPDATE wallets SET email = 'P@x.example' WHERE user_id = 'player'")
    world.sql("UPDATE operators SET email = 'p@x.example' WHERE name = :n", n=name)
    return "player,500,new@okaxis,two"


def by_upi_id(world: World, name: str) -> str:
    world.credit("player", 500)
    world.request("player", upi_id="theirs@okaxis")
    world.sql("UPDATE operators SET user_id = 'player' WHERE name = :n", n=name)
    return "stranger,500,Theirs@okaxis,two"


@pytest.mark.parametrize("paid", [by_account, by_email, by_upi_id])
def test_nobody_proposes_or_confirms_a_file_that_pays_them(
    two: World, file: Path, paid: Callable[[World, str], str]
) -> None:
    row = paid(two, "fay")
    many = [f"user{n},500,user{n}@okaxis,many-{n}" for n in range(600)]  # more than are asked for at once
    write(file, SMALL, *many, row)
    assert "It is your own" in payouts(file, "--propose")
    assert "Proposed" in payouts(file, "--propose", by="finn")
    assert "It is your own" in payouts(file, "--confirm")
    assert two.sql("SELECT FROM admin_proposals WHERE outcome IS NOT NULL") == []
    assert "A second person is needed" in payouts(file, by="finn")


def test_a_proposer_who_turns_out_to_be_paid_does_not_count(two: World, file: Path) -> None:
    write(file, SMALL, "player,500,new@okaxis,two")
    assert "Proposed" in payouts(file, "--propose")
    by_account(two, "fay")
    assert "fay would gain by it" in payouts(file, "--confirm", by="finn")


def test_an_import_is_confirmed_with_the_file_and_not_in_the_panel(two: World, file: Path) -> None:
    write(file, SMALL)
    payouts(file, "--propose")
    [made] = two.sql("SELECT id, fingerprint FROM admin_proposals")
    finn, page = Person("finn", create_app()).sign_in(), f"/admin/proposals/{made.id}/"
    finn.get("/admin/proposals/")
    assert "payouts import FILE --confirm" in finn.page.text and "Confirm …" not in finn.page.text
    finn.send(action=page, word="confirm")
    assert "The file is needed" in finn.messages
    finn.send(action=page, word="confirm", step="do", shown=made.fingerprint, reason="x")
    assert "The file is needed" in finn.messages
    done = invoke("proposals", "confirm", made.id, "--facts", made.fingerprint, by="finn")
    assert "The file is needed" in done.output
    assert two.sql("SELECT FROM admin_proposals WHERE outcome IS NOT NULL") == []
    finn.get("/admin/proposals/")
    finn.send(action=page, word="reject")
    finn.send(step="do", reason="not ours")
    assert "Rejected" in finn.messages
    assert "A second person is needed" in payouts(file)


def test_what_one_person_did_alone_is_no_confirmation_later(
    two: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, "fay,500,mine@okaxis,two", SMALL)
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "off")
    forget_settings()
    assert "No second person is needed" in payouts(file, "--propose")
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "on")
    forget_settings()
    assert "A second person is needed" in payouts(file)
    monkeypatch.setenv("SECOND_ADMIN_REQUIRED", "off")
    forget_settings()
    assert "1 taken, 0 taken before, 1 refused" in payouts(file)
