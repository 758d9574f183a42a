"""Day certificates balance and are signed; a proof convinces an outsider, and a forgery does not."""

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

from cli import main
from sandbox.dotenv import fill_secrets
from shared import withdrawals
from shared.clock import INDIA
from shared.proof import certificates, proofs, sealing
from tests.support.world import World, forget_settings

# The day must not end in the middle of a test.
pytestmark = pytest.mark.usefixtures("one_day")

SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC = proofs.public_key_text(proofs.private_key(SECRET))


@pytest.fixture(autouse=True)
def key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    forget_settings()


def payouts(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def today(world: World) -> datetime:
    """The day in India, by the database's clock."""
    return world.sql("SELECT now() AS now")[0].now.astimezone(INDIA)


def last_closable_day(world: World) -> date:
    """The newest day that can be closed: yesterday, or until one o'clock the day before."""
    return (today(world) - timedelta(seconds=sealing.LATE_SECONDS)).date() - timedelta(days=1)


def days_since_closable(world: World) -> int:
    """The number of days since `last_closable_day`."""
    return (today(world).date() - last_closable_day(world)).days


def move_back(world: World, days: int | None = None) -> None:
    """Move everything written so far some days into the past, by default to the newest day that can be
    closed. Only unsealed rows may move.
    """
    days = days_since_closable(world) if days is None else days
    for table in ("coin_transactions", "withdrawal_events"):
        world.sql_without_rules(f"UPDATE {table} SET created_at = created_at - interval '{days} days'")


def close_day(world: World, *arguments: str, ago: int = 0) -> Result:
    """Run the command for the newest day that can be closed, or for a day `ago` days before it."""
    return payouts("close-day", "--day", str(last_closable_day(world) - timedelta(days=ago)), *arguments)


def closed_day(world: World, *, ago: int = 0) -> dict[str, Any]:
    return parse(close_day(world, ago=ago))


def parse(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def verify(tmp_path: Path, document: Any, *arguments: str) -> Result:
    file = tmp_path / "document.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return payouts("verify", str(file), *arguments)


def reversed_withdrawal(world: World) -> UUID:
    """A withdrawal that completed and was reversed by the bank."""
    withdrawal_id = world.request(coins=300)
    assert world.finish(withdrawal_id) == "completed"
    payout = world.simulator.payouts()[0]
    world.receive_report({**payout, "status": "reversed"})
    return withdrawal_id


@pytest.fixture
def busy_world(world: World) -> World:
    """A day with every kind of coin movement."""
    world.credit(coins=5000)
    world.credit("user456", coins=1000, reference="other")
    reversed_withdrawal(world)
    assert world.finish(world.request(coins=700)) == "completed"
    assert world.finish(world.request(coins=110, upi_id="fail.bank_account_closed@sim")) == "failed"
    withdrawals.cancel(world.request("user456", coins=200), reason="no", actor="app:test")
    world.request("user456", coins=150)
    return world


# --- a day


def test_a_day_closes_to_zero(busy_world: World) -> None:
    move_back(busy_world)
    certificate = closed_day(busy_world)["certificate"]
    closing = certificate["closing"]
    assert closing == {
        "credited_coins": 6000, "balances_coins": 5150, "wallets": 2, "difference_coins": 0,
        "held_coins": 150, "held_paise": 1500, "held_withdrawals": 1,
        "paid_coins": 700, "paid_paise": 7000, "paid_withdrawals": 1,
        "outside_coins": 0, "outside_paise": 0, "outside_withdrawals": 0,
        "refunded_coins": 610, "refunded_paise": 6100, "refunded_withdrawals": 3,
    }  # fmt: skip
    assert set(certificate["opening"].values()) == {0}


def test_a_certificate_names_its_rows_and_blocks(busy_world: World) -> None:
    move_back(busy_world)
    certificate = closed_day(busy_world)["certificate"]
    assert certificate["journal"] == {"first_id": 1, "last_id": 10, "count": 10}
    [head] = busy_world.sql("SELECT number, block_hash FROM seal_blocks ORDER BY number DESC LIMIT 1")
    assert certificate["chain"] == {"block": head.number, "hash": head.block_hash.hex()}
    assert certificate["previous"] == "00" * 32


def test_a_day_is_a_day_in_india(world: World) -> None:
    world.credit(coins=1, reference="the last second")
    world.credit(coins=20, reference="the first second")
    for line, moment in ((1, "2026-03-01 18:29:59.999999+00"), (2, "2026-03-01 18:30:00+00")):
        world.sql_without_rules(f"UPDATE coin_transactions SET created_at = '{moment}' WHERE id = {line}")
    first, second = (
        parse(payouts("close-day", "--day", day))["certificate"] for day in ("2026-03-01", "2026-03-02")
    )
    assert (first["closing"]["credited_coins"], second["closing"]["credited_coins"]) == (1, 21)
    assert (first["begins_at"], first["ends_at"]) == (
        "2026-03-01T00:00:00+05:30",
        "2026-03-02T00:00:00+05:30",
    )


def test_a_day_opens_with_the_closing_balance_of_the_day_before(busy_world: World) -> None:
    move_back(busy_world, 1)
    busy_world.credit(reference="a day later")
    withdrawals.cancel(busy_world.request(), reason="no", actor="app:test")
    move_back(busy_world)
    before, after = (closed_day(busy_world, ago=ago)["certificate"] for ago in (1, 0))
    assert after["opening"] == before["closing"]
    assert after["journal"] == {"first_id": 11, "last_id": 13, "count": 3}
    assert after["closing"]["credited_coins"] == 8000


def test_a_certificate_continues_the_previous_one(world: World) -> None:
    world.credit()
    move_back(world, 3)
    first, second = (closed_day(world, ago=ago) for ago in (0, 1))
    assert second["certificate"]["previous"] == proofs.document_hash(first["certificate"]).hex()


def test_later_rows_do_not_change_a_day(world: World) -> None:
    """Withdrawals that are paid or refunded today were held yesterday, whatever their status is now."""
    world.credit()
    paid, refunded = world.request(coins=500), world.request(coins=300)
    move_back(world)
    withdrawals.cancel(refunded, reason="no", actor="app:test")
    assert world.finish(paid) == "completed"
    closing = closed_day(world)["certificate"]["closing"]
    assert (closing["held_coins"], closing["paid_coins"], closing["refunded_coins"]) == (800, 0, 0)


def test_the_same_day_closes_to_the_same_certificate(world: World) -> None:
    world.credit()
    move_back(world)
    first = close_day(world)
    world.credit(reference="later")
    again = close_day(world)
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert first.stdout and again.stdout == first.stdout


def test_the_default_day_is_yesterday(world: World) -> None:
    world.credit()
    now = today(world)
    yesterday = now.date() - timedelta(days=1)
    if last_closable_day(world) == yesterday:
        move_back(world)  # creates something to certify; a refused close would leave old rows unsealed
    result = payouts("close-day")
    if last_closable_day(world) == yesterday:
        assert parse(result)["certificate"]["day"] == str(yesterday)
    else:  # between midnight and one o'clock
        assert result.exit_code == 1
        assert f"{yesterday} can be closed from {now:%F} 01:00 IST" in result.output


def test_closing_a_day_concurrently_creates_one_certificate(world: World) -> None:
    world.credit()
    move_back(world)
    created: list[str] = []
    day = last_closable_day(world)
    threads = [
        threading.Thread(target=lambda: created.append(json.dumps(certificates.close_day(day))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(created), len(set(created))) == (4, 1)


def test_a_day_without_rows_closes_too(world: World) -> None:
    world.credit()
    move_back(world, 3)
    certificate = closed_day(world)["certificate"]
    assert certificate["journal"] == {"first_id": None, "last_id": None, "count": 0}
    assert certificate["opening"] == certificate["closing"]


def test_a_day_that_is_not_over_is_rejected(world: World) -> None:
    world.credit()
    result = payouts("close-day", "--day", f"{today(world):%F}")
    assert result.exit_code == 1
    assert f"can be closed from {today(world) + timedelta(days=1):%F} 01:00 IST" in result.output


def test_an_empty_database_gets_no_certificate(world: World) -> None:
    result = close_day(world)
    assert result.exit_code == 1 and "Nothing to certify" in result.output


def test_a_day_before_the_first_entry_is_rejected(world: World) -> None:
    world.credit()
    before = today(world).date() - timedelta(days=2)
    result = payouts("close-day", "--day", str(before))
    assert result.exit_code == 1
    assert f"Nothing to certify: The first entry was written after {before}" in result.output
    assert world.sql("SELECT * FROM day_certificates") == []


def test_changed_rows_are_not_signed(world: World) -> None:
    world.credit()
    move_back(world)
    sealing.seal_everything()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET actor = 'x'")
    result = close_day(world)
    assert result.exit_code == 1
    assert "Nothing was signed" in result.output and "coin_transactions 1" in result.output


def test_a_day_that_does_not_close_to_zero_is_not_signed(world: World) -> None:
    world.credit()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET balance_after = 2001")
    move_back(world)
    result = close_day(world)
    assert result.exit_code == 1 and "The totals do not balance" in result.output
    assert world.sql("SELECT * FROM day_certificates") == []


def test_without_a_key_the_command_says_how_to_create_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit()
    monkeypatch.delenv("CERTIFICATE_KEY")
    forget_settings()
    result = close_day(world)
    assert result.exit_code == 1 and "create one with `payouts certificate-key`" in result.output


def test_a_new_key_can_be_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    result = payouts("certificate-key")
    name, _, secret = result.stdout.strip().partition("=")
    monkeypatch.setenv(name, secret)
    forget_settings()
    world.credit()
    move_back(world)
    assert closed_day(world)["certificate"]["public_key"] == result.stderr.split()[-1]


@pytest.mark.parametrize("secret", ["secret-value", "c2VjcmV0LXZhbHVl"])
def test_an_invalid_key_is_rejected_and_not_printed(
    world: World, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CERTIFICATE_KEY", secret)
        forget_settings()
        result = payouts("close-day")
    forget_settings()
    assert result.exit_code == 1 and "CERTIFICATE_KEY: must be base64" in result.output
    assert secret not in result.output


def test_the_key_that_make_env_writes_can_sign() -> None:
    [line] = [text for text in fill_secrets("CERTIFICATE_KEY=\n").splitlines() if text]
    assert len(proofs.private_key(line.partition("=")[2]).sign(b"")) == 64


# --- `payouts check` and certificates


def certify(world: World) -> None:
    world.credit()
    move_back(world)
    closed_day(world)
    world.broken_on_purpose = True


CERTIFICATE_FAULTS = {
    "UPDATE day_certificates SET body = replace(body, '2000', '3000')": "does not match its signature",
    "UPDATE day_certificates SET signature = signature || '\\x00'": "does not match its signature",
    "UPDATE day_certificates SET certificate_hash = sha256('x')": "does not match its signature",
    "UPDATE day_certificates SET day = day - 1": "does not match its signature",
    "UPDATE day_certificates SET block = 2": "does not match its signature",
    "UPDATE day_certificates SET number = 2": "certificate 1 is missing",
}


@pytest.mark.parametrize("fault", CERTIFICATE_FAULTS)
def test_a_changed_certificate_is_reported(world: World, fault: str) -> None:
    certify(world)
    world.sql_without_rules(fault)
    result = payouts("check")
    assert result.exit_code == 1 and CERTIFICATE_FAULTS[fault] in result.output


def test_a_rebuilt_chain_contradicts_the_certificate(world: World) -> None:
    """An attacker who can write everything can forge rows, seals and hashes, but not the signature."""
    certify(world)
    world.sql_without_rules("UPDATE coin_transactions SET actor = 'x'")
    world.sql_without_rules("DELETE FROM seal_leaves")
    world.sql_without_rules("DELETE FROM seal_blocks")
    sealing.seal_everything()
    result = payouts("check")
    assert result.exit_code == 1 and "signed over a different block 1" in result.output


def test_a_certificate_signed_with_another_key_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.credit(reference="a day before")
    move_back(world)
    certify(world)
    monkeypatch.setenv("CERTIFICATE_KEY", "A" * 43 + "=")
    forget_settings()
    closed_day(world, ago=1)
    assert "BROKEN" not in payouts("check").output  # a new key is not a fault
    monkeypatch.setenv("CERTIFICATE_KEY", SECRET)
    forget_settings()
    assert "signed with a key that is not ours" in payouts("check").output


def test_a_row_inserted_into_a_closed_day_is_reported(world: World) -> None:
    certify(world)
    world.sql_without_rules(
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor, created_at)"
        f" VALUES ('user123', 'credit', 5, 2005, 'forged', 'me', now() - interval '{days_since_closable(world)} days')"
    )
    sealing.seal_everything()
    result = payouts("check")
    assert result.exit_code == 1
    assert "coin_transactions 2 (added to a day that was already certified)" in result.output


# --- a withdrawal


@pytest.fixture
def proof(busy_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The proof of one of several withdrawals, in several blocks that a certificate covers."""
    move_back(busy_world)
    monkeypatch.setattr(sealing, "MAX_ROWS_PER_SOURCE", 4)
    closed_day(busy_world)
    [row] = busy_world.sql("SELECT id FROM withdrawals WHERE coins_amount = 700")
    yield json.loads(payouts("prove", str(row.id)).stdout)


def test_a_proof_leads_from_every_row_to_the_signature(
    world: World, proof: dict[str, Any], tmp_path: Path
) -> None:
    result = verify(tmp_path, proof, "--public-key", PUBLIC)
    assert result.exit_code == 0, result.output
    condition = f"withdrawal_id = '{proof['withdrawal_id']}'"
    rows = world.sql(f"SELECT id FROM withdrawal_events WHERE {condition} ORDER BY id")
    shown = [line.split("  ")[:2] for line in result.output.splitlines() if line.startswith("source=")]
    assert shown == [["source=journal", "id=5"], *(["source=events", f"id={row.id}"] for row in rows)]
    assert "signed the totals of" in result.output


def test_a_proof_reveals_no_other_user(world: World, proof: dict[str, Any]) -> None:
    document = json.dumps(proof)
    others = world.sql(f"SELECT id::text FROM withdrawals WHERE id <> '{proof['withdrawal_id']}'")
    assert not [word for word in ("user456", *(row.id for row in others)) if word in document]


def test_a_neighbours_hash_cannot_be_guessed_from_the_row(world: World, proof: dict[str, Any]) -> None:
    """Without the salt, an attacker who knows the form of a neighbour's row could try every possible row."""
    document = json.dumps(proof)
    leaves = world.sql("SELECT salt, leaf_hash FROM seal_leaves")
    assert any(leaf.leaf_hash.hex() in document for leaf in leaves)
    assert len({leaf.salt for leaf in leaves}) == len(leaves)
    mine = {leaf["salt"] for leaf in proof["leaves"]}
    assert not [leaf for leaf in leaves if leaf.salt.hex() in document and leaf.salt.hex() not in mine]


def test_verifying_needs_no_settings_and_no_database(proof: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof))
    command = [sys.executable, "-m", "cli", "verify", str(file), "--public-key", PUBLIC]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_change_to_a_proof_is_detected(proof: dict[str, Any], tmp_path: Path) -> None:
    assert len(proof["blocks"]) > 1
    for path in paths(proof):
        forged = altered(proof, path)
        assert verify(tmp_path, forged, "--public-key", PUBLIC).exit_code == 1, path


def test_a_proof_with_a_missing_row_still_states_the_row_count(proof: dict[str, Any], tmp_path: Path) -> None:
    count = len(proof["leaves"])
    del proof["leaves"][-1]
    assert f"Proven: {count - 1} rows" in verify(tmp_path, proof, "--public-key", PUBLIC).output


def test_a_proof_with_a_duplicate_row_is_rejected(proof: dict[str, Any], tmp_path: Path) -> None:
    proof["leaves"].append(proof["leaves"][-1])
    assert "A row appears twice" in verify(tmp_path, proof, "--public-key", PUBLIC).output


def test_a_proof_without_its_certificate_claims_no_signature(proof: dict[str, Any], tmp_path: Path) -> None:
    proof["certificate"] = None
    result = verify(tmp_path, proof)
    head = proofs.document_hash(proof["blocks"][-1]).hex()
    assert result.exit_code == 0 and head in result.output and "signed" not in result.output


@pytest.mark.parametrize("arguments", [(), ("--public-key", "A" * 43 + "="), ("--public-key", "no key")])
def test_a_signature_is_trusted_only_with_a_known_key(
    proof: dict[str, Any], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    for document in (proof, proof["certificate"]):
        result = verify(tmp_path, document, *arguments)
        assert result.exit_code == 1 and "Not proven" in result.output
        assert ("signed with a different key" if arguments else "--public-key") in result.output


def test_a_proof_before_any_certificate_leads_to_the_head_of_the_chain(world: World, tmp_path: Path) -> None:
    withdrawal_id = world.paid()
    result = payouts("prove", str(withdrawal_id))
    document = json.loads(result.stdout)
    assert document["certificate"] is None
    [head] = world.sql("SELECT block_hash FROM seal_blocks ORDER BY number DESC LIMIT 1")
    assert head.block_hash.hex() in verify(tmp_path, document).output


def test_a_proof_that_would_not_verify_is_not_issued(world: World) -> None:
    withdrawal_id = world.paid()
    sealing.seal()
    world.broken_on_purpose = True
    world.sql_without_rules("UPDATE coin_transactions SET coins = -400 WHERE kind = 'withdrawal'")
    result = payouts("prove", str(withdrawal_id))
    assert result.exit_code == 1 and "payouts check" in result.output


def test_a_proof_without_rows_is_rejected(world: World) -> None:
    assert "Withdrawal not found" in payouts("prove", str(uuid4())).output
    assert "Invalid id" in payouts("prove", "x").output


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"type": "coin-payouts/withdrawal-proof"}', "[" * 100_000]
)
def test_an_invalid_proof_file_is_a_plain_error(tmp_path: Path, text: str) -> None:
    result = verify(tmp_path, text)
    assert result.exit_code == 1 and "not one of our proofs or certificates" in result.output


def test_any_change_to_a_certificate_is_detected(world: World, tmp_path: Path) -> None:
    world.credit()
    move_back(world)
    certificate = closed_day(world)
    assert verify(tmp_path, certificate, "--public-key", PUBLIC).exit_code == 0
    for path in paths(certificate):
        assert verify(tmp_path, altered(certificate, path), "--public-key", PUBLIC).exit_code == 1, path


def test_a_certificate_is_written_to_a_file(world: World, tmp_path: Path) -> None:
    world.credit()
    move_back(world)
    file = tmp_path / "day.json"
    written = close_day(world, "--output", str(file))
    assert (written.exit_code, written.stdout) == (0, ""), written.output
    assert payouts("verify", str(file), "--public-key", PUBLIC).exit_code == 0


def test_other_programs_accept_the_signature(world: World) -> None:
    """It is plain Ed25519 over canonical JSON, so no code of ours is needed."""
    world.credit()
    move_back(world)
    signed = closed_day(world)
    body = json.dumps(signed["certificate"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SECRET))
    key.public_key().verify(base64.b64decode(signed["signature"]), body.encode())


def paths(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value in a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield at
        return
    for name, value in children:
        yield from paths(value, (*at, name))


def altered(document: Any, path: tuple[Any, ...]) -> Any:
    """A copy with a different value at `path`."""
    forged = copy.deepcopy(document)
    inner = forged
    for name in path[:-1]:
        inner = inner[name]
    value = inner[path[-1]]
    inner[path[-1]] = value + 1 if isinstance(value, int) else "" if value is None else altered_text(value)
    return forged


def altered_text(text: str) -> str:
    return ("1" if text[0] == "0" else "0") + text[1:]
