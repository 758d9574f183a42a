"""An import is confirmed with its file, for all rows, by two people whom it does not pay."""

from collections.abc import Callable
from pathlib import Path

import pytest

from api.app import create_app
from shared.db.transactions import transaction
from shared.roles import Role
from shared.withdrawals import blocks
from tests.api.admin.person import Person, add_operator
from tests.support.shell import invoke
from tests.support.world import World, forget_settings

HEADER = "user_id,amount,upi_id,reference"
SMALL = "user123,500,user@okaxis,one"


@pytest.fixture
def two(panel: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system as it is by default, with two operators of finance."""
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


def payouts(file: Path, *arguments: str, by: str = "fay") -> str:
    return " ".join(invoke("import", file, *arguments, by=by).output.split())


def confirmed(world: World, file: Path) -> None:
    assert "Proposed" in payouts(file, "--propose")
    assert "Confirmed" in payouts(file, "--confirm", by="finn")
    assert world.sql("SELECT FROM admin_proposals WHERE outcome = 'confirmed'")


def test_a_confirmation_covers_all_rows_of_the_file(two: World, file: Path) -> None:
    two.credit("frozen", 900)
    with transaction() as session:
        blocks.freeze(session, "frozen", reason="many phones", actor="operator:finn")
    write(file, SMALL, "poor,4000,mine@okaxis,two", "frozen,900,mine@okaxis,three", "poor,typo,x,four")
    assert "Proposed: 3 rows, 5,400 coins, whatever the wallets hold now" in payouts(file, "--propose")
    [proposal] = two.sql("SELECT wanted FROM admin_proposals")
    assert proposal.wanted == {
        "name": "prizes.csv", "rows": 3, "coins": 5400, "rows_now": 1, "coins_now": 500
    }  # fmt: skip
    finn = Person("finn", create_app()).sign_in()
    for shown in (finn.get("/admin/proposals/").text, invoke("proposals", "list").output):
        assert "3 rows, 5,400 coins, whatever the wallets hold now" in shown
        assert "1 rows with 500 coins could be imported" in shown
    assert "Confirmed: 3 rows, 5,400 coins" in payouts(file, "--confirm", by="finn")
    two.credit("poor", 4000)
    assert payouts(file).endswith("2 imported, 0 already imported, 2 rejected; 4,500 coins, ₹450.00")


def test_rows_without_coins_can_be_proposed(two: World, file: Path) -> None:
    write(file, "poor,4000,mine@okaxis,two")
    result = invoke("import", file, "--propose", by="fay")
    assert result.exit_code == 1 and "Proposed: 1 rows, 4,000 coins" in result.output
    write(file, "poor,typo,mine@okaxis,two")
    assert invoke("import", file, "--propose", by="fay").exit_code == 2


def test_an_import_takes_no_more_than_was_confirmed(
    two: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "400")
    forget_settings()
    write(file, SMALL, "user123,300,user@okaxis,two", "poor,500,user@okaxis,three")
    confirmed(two, file)
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "100")  # an invalid row is now valid
    forget_settings()
    two.credit("poor", 500)
    output = payouts(file)
    assert "line 4: More than was confirmed: 2 rows and 1,000 coins were confirmed" in output
    assert "2 imported, 0 already imported, 1 rejected; 800 coins" in output
    assert "0 imported, 2 already imported, 1 rejected; 0 coins" in payouts(file), (
        "to go on starts no new count"
    )
    assert two.balance("poor") == 500


def test_a_confirmation_needs_the_same_rows(two: World, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_no_one_proposes_or_confirms_a_file_that_pays_them(
    two: World, file: Path, paid: Callable[[World, str], str]
) -> None:
    row = paid(two, "fay")
    many = [f"user{n},500,user{n}@okaxis,many-{n}" for n in range(600)]  # more than one query checks
    write(file, SMALL, *many, row)
    assert "It is your own" in payouts(file, "--propose")
    assert "Proposed" in payouts(file, "--propose", by="finn")
    assert "It is your own" in payouts(file, "--confirm")
    assert two.sql("SELECT FROM admin_proposals WHERE outcome IS NOT NULL") == []
    assert "A second person is needed" in payouts(file, by="finn")


def test_a_maker_who_would_be_paid_does_not_count(two: World, file: Path) -> None:
    write(file, SMALL, "player,500,new@okaxis,two")
    assert "Proposed" in payouts(file, "--propose")
    by_account(two, "fay")
    assert "fay would benefit from it" in payouts(file, "--confirm", by="finn")


def test_an_import_is_confirmed_with_the_file_only(two: World, file: Path) -> None:
    write(file, SMALL)
    payouts(file, "--propose")
    [proposal] = two.sql("SELECT id, fingerprint FROM admin_proposals")
    finn = Person("finn", create_app()).sign_in()
    page = f"/admin/proposals/{proposal.id}/"
    finn.get("/admin/proposals/")
    assert "payouts import FILE --confirm" in finn.page.text and "Confirm …" not in finn.page.text
    finn.send(action=page, word="confirm")
    assert "The file is needed" in finn.messages
    finn.send(action=page, word="confirm", step="do", shown=proposal.fingerprint, reason="x")
    assert "The file is needed" in finn.messages
    result = invoke("proposals", "confirm", proposal.id, "--facts", proposal.fingerprint, by="finn")
    assert "The file is needed" in result.output
    assert two.sql("SELECT FROM admin_proposals WHERE outcome IS NOT NULL") == []
    finn.get("/admin/proposals/")
    finn.send(action=page, word="reject")
    finn.send(step="do", reason="not ours")
    assert "Rejected" in finn.messages
    assert "A second person is needed" in payouts(file)


def test_an_import_by_one_person_is_no_later_confirmation(
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
    assert "1 imported, 0 already imported, 1 rejected" in payouts(file)
