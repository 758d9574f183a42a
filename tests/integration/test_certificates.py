"""What is handed out: a day's certificate closes to zero and is signed, a proof convinces a stranger, a forgery does not."""

import base64
import copy
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox.dotenv import filled
from shared import certificates, proofs, sealing, withdrawals
from shared.cli import main
from shared.clock import INDIA
from tests.world import World, forget_settings

# Which day is over must not change in the middle of a test.
pytestmark = pytest.mark.usefixtures("one_day")

SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC = proofs.public_text(proofs.private_key(SECRET))


@pytest.fixture(autouse=True)
def key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    forget_settings()


def payouts(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def today(world: World) -> datetime:
    """The day in India, by the database's clock."""
    return world.sql("SELECT now() AS now")[0].now.astimezone(INDIA)


def over(world: World) -> date:
    """The newest day that can be closed: yesterday, and between midnight and one o'clock the day before it."""
    return (today(world) - timedelta(seconds=sealing.LATE_SECONDS)).date() - timedelta(days=1)


def since_over(world: World) -> int:
    """How many days ago that was."""
    return (today(world).date() - over(world)).days


def days_pass(world: World, days: int | None = None) -> None:
    """Everything that was written so far was written some days before, or on the newest day that can be closed.
    Only rows that no seal holds may move.
    """
    days = since_over(world) if days is None else days
    for table in ("coin_transactions", "withdrawal_events"):
        world.sql_without_rules(f"UPDATE {table} SET created_at = created_at - interval '{days} days'")


def close_day(world: World, *words: str, ago: int = 0) -> Result:
    """The command for the newest day that can be closed, or for one so many days before it."""
    return payouts("close-day", "--day", str(over(world) - timedelta(days=ago)), *words)


def closed(world: World, *, ago: int = 0) -> dict[str, Any]:
    return told_by(close_day(world, ago=ago))


def told_by(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def verified(tmp_path: Path, told: Any, *words: str) -> Result:
    file = tmp_path / "told.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return payouts("verify", str(file), *words)


def reversed_one(world: World) -> UUID:
    """Completed, and sent back by the bank."""
    withdrawal_id = world.request(coins=300)
    assert world.finish(withdrawal_id) == "completed"
    payout = world.simulator.payouts()[0]
    world.hears({**payout, "status": "reversed"})
    return withdrawal_id


@pytest.fixture
def lively(world: World) -> World:
    """A day on which everything happens that can happen to coins."""
    world.credit(coins=5000)
    world.credit("user456", coins=1000, reference="other")
    reversed_one(world)
    assert world.finish(world.request(coins=700)) == "completed"
    assert world.finish(world.request(coins=110, upi_id="fail.bank_account_closed@sim")) == "failed"
    withdrawals.cancel(world.request("user456", coins=200), reason="no", actor="app:test")
    world.request("user456", coins=150)
    return world


# --- a day


def test_a_day_closes_to_zero(lively: World) -> None:
    days_pass(lively)
    told = closed(lively)["certificate"]
    closing = told["closing"]
    assert closing == {
        "credited_coins": 6000, "balances_coins": 5150, "wallets": 2, "difference_coins": 0,
        "held_coins": 150, "held_paise": 1500, "held_withdrawals": 1,
        "paid_coins": 700, "paid_paise": 7000, "paid_withdrawals": 1,
        "outside_coins": 0, "outside_paise": 0, "outside_withdrawals": 0,
        "refunded_coins": 610, "refunded_paise": 6100, "refunded_withdrawals": 3,
    }  # fmt: skip
    assert set(told["opening"].values()) == {0}


def test_a_certificate_says_which_rows_and_which_blocks_it_is_about(lively: World) -> None:
    days_pass(lively)
    told = closed(lively)["certificate"]
    assert told["journal"] == {"first_id": 1, "last_id": 10, "count": 10}
    [head] = lively.sql("SELECT number, block_hash FROM seal_blocks ORDER BY number DESC LIMIT 1")
    assert told["chain"] == {"block": head.number, "hash": head.block_hash.hex()}
    assert told["previous"] == "00" * 32


def test_a_day_is_a_day_in_india(world: World) -> None:
    world.credit(coins=1, reference="the last second")
    world.credit(coins=20, reference="the first second")
    for line, moment in ((1, "2026-03-01 18:29:59.999999+00"), (2, "2026-03-01 18:30:00+00")):
        world.sql_without_rules(f"UPDATE coin_transactions SET created_at = '{moment}' WHERE id = {line}")
    first, second = (
        told_by(payouts("close-day", "--day", day))["certificate"] for day in ("2026-03-01", "2026-03-02")
    )
    assert (first["closing"]["credited_coins"], second["closing"]["credited_coins"]) == (1, 21)
    assert (first["begins_at"], first["ends_at"]) == (
        "2026-03-01T00:00:00+05:30",
        "2026-03-02T00:00:00+05:30",
    )


def test_a_day_opens_as_the_day_before_closed(lively: World) -> None:
    days_pass(lively, 1)
    lively.credit(reference="a day later")
    withdrawals.cancel(lively.request(), reason="no", actor="app:test")
    days_pass(lively)
    before, after = (closed(lively, ago=ago)["certificate"] for ago in (1, 0))
    assert after["opening"] == before["closing"]
    assert after["journal"] == {"first_id": 11, "last_id": 13, "count": 3}
    assert after["closing"]["credited_coins"] == 8000


def test_a_certificate_continues_the_one_before(world: World) -> None:
    world.credit()
    days_pass(world, 3)
    first, second = (closed(world, ago=ago) for ago in (0, 1))
    assert second["certificate"]["previous"] == proofs.hash_of(first["certificate"]).hex()


def test_what_happens_after_the_day_does_not_change_it(world: World) -> None:
    """Paid or refunded today, the withdrawals were held yesterday, whatever their status says now."""
    world.credit()
    paid, refunded = world.request(coins=500), world.request(coins=300)
    days_pass(world)
    withdrawals.cancel(refunded, reason="no", actor="app:test")
    assert world.finish(paid) == "completed"
    closing = closed(world)["certificate"]["closing"]
    assert (closing["held_coins"], closing["paid_coins"], closing["refunded_coins"]) == (800, 0, 0)


def test_the_same_day_closes_to_the_same_certificate(world: World) -> None:
    world.credit()
    days_pass(world)
    first = close_day(world)
    world.credit(reference="later")
    again = close_day(world)
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert first.stdout and again.stdout == first.stdout


def test_the_day_is_yesterday_if_nobody_says_which(world: World) -> None:
    world.credit()
    now = today(world)
    yesterday = now.date() - timedelta(days=1)
    if over(world) == yesterday:
        days_pass(world)  # there is something to certify; where it is refused, nothing would seal what is old
    result = payouts("close-day")
    if over(world) == yesterday:
        assert told_by(result)["certificate"]["day"] == str(yesterday)
    else:  # between midnight and one o'clock
        assert result.exit_code == 1
        assert f"{yesterday} can be closed from {now:%F} 01:00 IST" in result.output


def test_closing_at_once_makes_one_certificate(world: World) -> None:
    world.credit()
    days_pass(world)
    made: list[str] = []
    day = over(world)
    threads = [
        threading.Thread(target=lambda: made.append(json.dumps(certificates.close_day(day))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made))) == (4, 1)


def test_a_day_without_rows_closes_too(world: World) -> None:
    world.credit()
    days_pass(world, 3)
    told = closed(world)["certificate"]
    assert told["journal"] == {"first_id": None, "last_id": None, "count": 0}
    assert told["opening"] == told["closing"]


def test_a_day_that_is_not_over_is_refused(world: World) -> None:
    world.credit()
    result = payouts("close-day", "--day", f"{today(world):%F}")
    assert result.exit_code == 1
    assert f"can be closed from {today(world) + timedelta(days=1):%F} 01:00 IST" in result.output


def test_nothing_is_signed_where_there_is_nothing(world: World) -> None:
    result = close_day(world)
    assert result.exit_code == 1 and "Nothing to certify" in result.output


def test_a_day_before_the_first_entry_is_refused(world: World) -> None:
    world.credit()
    before = today(world).date() - timedelta(days=2)
    result = payouts("close-day", "--day", str(before))
    assert result.exit_code == 1
    assert f"Nothing to certify: The first entry was written after {before}" in result.output
    assert world.sql("SELECT * FROM day_certificates") == []


def test_nothing_is_signed_over_changed_rows(world: World) -> None:
    world.credit()
    days_pass(world)
    sealing.seal_everything()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET actor = 'x'")
    result = close_day(world)
    assert result.exit_code == 1
    assert "Nothing was signed" in result.output and "coin_transactions 1" in result.output


def test_nothing_is_signed_that_does_not_close_to_zero(world: World) -> None:
    world.credit()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET balance_after = 2001")
    days_pass(world)
    result = close_day(world)
    assert result.exit_code == 1 and "do not close to zero" in result.output
    assert world.sql("SELECT * FROM day_certificates") == []


def test_without_a_key_the_command_says_how_to_make_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    monkeypatch.delenv("CERTIFICATE_KEY")
    forget_settings()
    result = close_day(world)
    assert result.exit_code == 1 and "`payouts certificate-key` makes one" in result.output


def test_a_fresh_key_is_one_that_can_be_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = payouts("certificate-key")
    name, _, secret = made.stdout.strip().partition("=")
    monkeypatch.setenv(name, secret)
    forget_settings()
    world.credit()
    days_pass(world)
    assert closed(world)["certificate"]["public_key"] == made.stderr.split()[-1]


@pytest.mark.parametrize("secret", ["secret-value", "c2VjcmV0LXZhbHVl"])
def test_a_key_that_is_none_is_refused_and_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CERTIFICATE_KEY", secret)
        forget_settings()
        result = payouts("close-day")
    forget_settings()
    assert result.exit_code == 1 and "CERTIFICATE_KEY: must be the base64" in result.output
    assert secret not in result.output


def test_the_key_that_make_env_writes_can_sign() -> None:
    [line] = [one for one in filled("CERTIFICATE_KEY=\n").splitlines() if one]
    assert len(proofs.private_key(line.partition("=")[2]).sign(b"")) == 64


# --- what `payouts check` says of certificates


def certified(world: World) -> None:
    world.credit()
    days_pass(world)
    closed(world)
    world.broken_on_purpose = True


CERTIFICATE_FAULTS = {
    "UPDATE day_certificates SET body = replace(body, '2000', '3000')": "is not what was signed",
    "UPDATE day_certificates SET signature = signature || '\\x00'": "is not what was signed",
    "UPDATE day_certificates SET certificate_hash = sha256('x')": "is not what was signed",
    "UPDATE day_certificates SET day = day - 1": "is not what was signed",
    "UPDATE day_certificates SET block = 2": "is not what was signed",
    "UPDATE day_certificates SET number = 2": "certificate 1 is missing",
}


@pytest.mark.parametrize("fault", CERTIFICATE_FAULTS)
def test_a_changed_certificate_is_named(world: World, fault: str) -> None:
    certified(world)
    world.sql_without_rules(fault)
    result = payouts("check")
    assert result.exit_code == 1 and CERTIFICATE_FAULTS[fault] in result.output


def test_a_chain_that_was_made_anew_contradicts_the_certificate(world: World) -> None:
    """Someone who may write everything makes rows, seals and hashes that fit. The signature they cannot make."""
    certified(world)
    world.sql_without_rules("UPDATE coin_transactions SET actor = 'x'")
    world.sql_without_rules("DELETE FROM seal_leaves")
    world.sql_without_rules("DELETE FROM seal_blocks")
    sealing.seal_everything()
    result = payouts("check")
    assert result.exit_code == 1 and "signed over another block 1" in result.output


def test_a_certificate_of_another_key_after_ours_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit(reference="a day before")
    days_pass(world)
    certified(world)
    monkeypatch.setenv("CERTIFICATE_KEY", "A" * 43 + "=")
    forget_settings()
    closed(world, ago=1)
    assert "BROKEN" not in payouts("check").output  # a change of keys is no fault
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    forget_settings()
    assert "signed with a key that is not ours" in payouts("check").output


def test_a_row_that_is_put_into_a_closed_day_is_named(world: World) -> None:
    certified(world)
    world.sql_without_rules(
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor, created_at)"
        f" VALUES ('user123', 'credit', 5, 2005, 'forged', 'me', now() - interval '{since_over(world)} days')"
    )
    sealing.seal_everything()
    result = payouts("check")
    assert result.exit_code == 1
    assert "coin_transactions 2 (written into a day that was closed)" in result.output


# --- a withdrawal


@pytest.fixture
def proof(lively: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Of a withdrawal among others, in several blocks, which a certificate covers."""
    days_pass(lively)
    monkeypatch.setattr(sealing, "ROWS_PER_SOURCE", 4)
    closed(lively)
    [row] = lively.sql("SELECT id FROM withdrawals WHERE coins_amount = 700")
    yield json.loads(payouts("prove", str(row.id)).stdout)


def test_a_proof_leads_from_every_row_to_the_signature(
    world: World, proof: dict[str, Any], tmp_path: Path
) -> None:
    result = verified(tmp_path, proof, "--public-key", PUBLIC)
    assert result.exit_code == 0, result.output
    about = f"withdrawal_id = '{proof['withdrawal_id']}'"
    rows = world.sql(f"SELECT id FROM withdrawal_events WHERE {about} ORDER BY id")
    shown = [line.split("  ")[:2] for line in result.output.splitlines() if line.startswith("source=")]
    assert shown == [["source=journal", "id=5"], *(["source=events", f"id={row.id}"] for row in rows)]
    assert "signed the books of" in result.output


def test_a_proof_says_nothing_of_anybody_else(world: World, proof: dict[str, Any]) -> None:
    told = json.dumps(proof)
    others = world.sql(f"SELECT id::text FROM withdrawals WHERE id <> '{proof['withdrawal_id']}'")
    assert not [word for word in ("user456", *(row.id for row in others)) if word in told]


def test_a_neighbours_hash_cannot_be_guessed_from_the_row(world: World, proof: dict[str, Any]) -> None:
    """Without the salt, whoever knows what a neighbour's row may say could try every such row."""
    told = json.dumps(proof)
    leaves = world.sql("SELECT salt, leaf_hash FROM seal_leaves")
    assert any(leaf.leaf_hash.hex() in told for leaf in leaves)
    assert len({leaf.salt for leaf in leaves}) == len(leaves)
    mine = {leaf["salt"] for leaf in proof["leaves"]}
    assert not [leaf for leaf in leaves if leaf.salt.hex() in told and leaf.salt.hex() not in mine]


def test_verifying_needs_no_settings_and_no_database(proof: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof))
    command = [sys.executable, "-m", "shared.cli", "verify", str(file), "--public-key", PUBLIC]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_change_of_a_proof_is_seen(proof: dict[str, Any], tmp_path: Path) -> None:
    assert len(proof["blocks"]) > 1
    for place in places(proof):
        forged = changed(proof, place)
        assert verified(tmp_path, forged, "--public-key", PUBLIC).exit_code == 1, place


def test_a_proof_with_a_row_less_still_says_how_many_it_has(proof: dict[str, Any], tmp_path: Path) -> None:
    count = len(proof["leaves"])
    del proof["leaves"][-1]
    assert f"Proven: {count - 1} rows" in verified(tmp_path, proof, "--public-key", PUBLIC).output


def test_a_proof_with_a_row_twice_is_refused(proof: dict[str, Any], tmp_path: Path) -> None:
    proof["leaves"].append(proof["leaves"][-1])
    assert "A row is told twice" in verified(tmp_path, proof, "--public-key", PUBLIC).output


def test_a_proof_without_its_certificate_claims_no_signature(proof: dict[str, Any], tmp_path: Path) -> None:
    proof["certificate"] = None
    result = verified(tmp_path, proof)
    head = proofs.hash_of(proof["blocks"][-1]).hex()
    assert result.exit_code == 0 and head in result.output and "signed" not in result.output


@pytest.mark.parametrize("words", [(), ("--public-key", "A" * 43 + "="), ("--public-key", "no key")])
def test_what_is_signed_is_believed_only_from_a_key_that_one_knows(
    proof: dict[str, Any], tmp_path: Path, words: tuple[str, ...]
) -> None:
    for told in (proof, proof["certificate"]):
        result = verified(tmp_path, told, *words)
        assert result.exit_code == 1 and "Not proven" in result.output
        assert ("signed with another key" if words else "--public-key") in result.output


def test_a_proof_before_any_certificate_leads_to_the_head_of_the_chain(world: World, tmp_path: Path) -> None:
    withdrawal_id = world.paid()
    result = payouts("prove", str(withdrawal_id))
    told = json.loads(result.stdout)
    assert told["certificate"] is None
    [head] = world.sql("SELECT block_hash FROM seal_blocks ORDER BY number DESC LIMIT 1")
    assert head.block_hash.hex() in verified(tmp_path, told).output


def test_no_proof_is_handed_out_that_would_not_convince(world: World) -> None:
    withdrawal_id = world.paid()
    sealing.seal()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET coins = -400 WHERE kind = 'withdrawal'")
    result = payouts("prove", str(withdrawal_id))
    assert result.exit_code == 1 and "payouts check" in result.output


def test_a_proof_of_nothing_is_refused(world: World) -> None:
    assert "Withdrawal not found" in payouts("prove", str(uuid4())).output
    assert "Not an id" in payouts("prove", "x").output


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"type": "coin-payouts/withdrawal-proof"}', "[" * 100_000]
)
def test_what_is_no_proof_is_told_plainly(tmp_path: Path, text: str) -> None:
    result = verified(tmp_path, text)
    assert result.exit_code == 1 and "no proof and no certificate" in result.output


def test_any_change_of_a_certificate_is_seen(world: World, tmp_path: Path) -> None:
    world.credit()
    days_pass(world)
    told = closed(world)
    assert verified(tmp_path, told, "--public-key", PUBLIC).exit_code == 0
    for place in places(told):
        assert verified(tmp_path, changed(told, place), "--public-key", PUBLIC).exit_code == 1, place


def test_a_certificate_goes_into_a_file(world: World, tmp_path: Path) -> None:
    world.credit()
    days_pass(world)
    file = tmp_path / "day.json"
    written = close_day(world, "--output", str(file))
    assert (written.exit_code, written.stdout) == (0, ""), written.output
    assert payouts("verify", str(file), "--public-key", PUBLIC).exit_code == 0


def test_the_signature_is_one_that_other_programs_accept(world: World) -> None:
    """Ed25519 over the canonical JSON, and nothing else that only our own code would know."""
    world.credit()
    days_pass(world)
    told = closed(world)
    body = json.dumps(told["certificate"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SECRET))
    key.public_key().verify(base64.b64decode(told["signature"]), body.encode())


def places(told: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value in a document, by the way to it."""
    children = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else None
    if children is None:
        yield at
        return
    for name, value in children:
        yield from places(value, (*at, name))


def changed(told: Any, place: tuple[Any, ...]) -> Any:
    """A copy with another value there."""
    forged = copy.deepcopy(told)
    inner = forged
    for name in place[:-1]:
        inner = inner[name]
    value = inner[place[-1]]
    inner[place[-1]] = value + 1 if isinstance(value, int) else "" if value is None else other(value)
    return forged


def other(text: str) -> str:
    return ("1" if text[0] == "0" else "0") + text[1:]
