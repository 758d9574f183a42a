"""`payouts check` finds what is wrong: each thing is planted by hand, past everything that would refuse it."""

import pytest
from click.testing import CliRunner

from shared import checks
from shared.cli import main
from tests.world import World

# what is planted (as a superuser, with the triggers off) -> the truth that then does not hold
PLANTS = {
    "UPDATE wallets SET balance_coins = balance_coins + 1": "every balance is the sum of its journal",
    "UPDATE coin_transactions SET balance_after = 7 WHERE kind = 'credit'": "every line of the journal continues the one before it",
    "UPDATE wallets SET lifetime_coins = 1": "lifetime coins are the sum of the credits",
    "DELETE FROM coin_transactions WHERE kind = 'withdrawal'": "every withdrawal took its coins, once",
    "UPDATE payout_attempts SET state = 'accepted', recheck_at = NULL WHERE state = 'paid'": "a completed withdrawal has one paid payout, or two people's word, and only it has one",
    "DELETE FROM coin_transactions WHERE kind = 'refund'": "failed and cancelled withdrawals were refunded once, others never",
    "UPDATE payout_attempts SET state = 'accepted', ended_at = NULL WHERE state = 'failed'": "nothing was refunded while a payout may still succeed",
    "UPDATE withdrawals SET status = 'cancelled', failure_reason = NULL WHERE status = 'failed'": "the last event of every withdrawal tells its status",
    "UPDATE withdrawals SET upi_id = 'thief@okaxis' WHERE status = 'pending'": "payee and amount are those of the request",
    "UPDATE withdrawals SET amount_paise = 100 WHERE status = 'pending'": "payee and amount are those of the request",
    "UPDATE withdrawal_events SET data = '{}' WHERE reason = 'requested'": "payee and amount are those of the request",
    """UPDATE withdrawal_events SET data = '{"upi_id": "user@okhdfcbank", "amount_paise": "much"}' WHERE from_status IS NULL""": "payee and amount are those of the request",
    "UPDATE withdrawals SET awaits_approval = 'amount' WHERE status = 'failed'": "nothing that awaited approval was sent without it",
    "UPDATE withdrawal_events SET data = '{\"awaits_approval\": \"every\"}' WHERE reason = 'paid'": "nothing that awaited approval was sent without it",
    "UPDATE wallets SET is_frozen = true": "a wallet is frozen exactly while somebody's word says so",
    "INSERT INTO blocks (kind, subject, reason, added_by) VALUES ('wallet', 'user123', 'x', 'x')": "a wallet is frozen exactly while somebody's word says so",
    "UPDATE coin_transactions SET kind = 'adjustment', withdrawal_id = NULL WHERE kind = 'refund'": "adjustments are those that people decided on",
    "UPDATE wallets SET day_coins = 100": "what counts for a user's limits is what was asked for and not given back",
    "UPDATE withdrawals SET counted_on = NULL WHERE status = 'pending'": "what counts for a user's limits is what was asked for and not given back",
    "DELETE FROM withdrawal_events WHERE from_status = 'pending' AND to_status = 'processing'": "the events of every withdrawal are one unbroken story from its request on",
    "DELETE FROM withdrawal_events WHERE from_status IS NULL": "the events of every withdrawal are one unbroken story from its request on",
    "UPDATE withdrawal_events SET from_status = 'cancelled' WHERE reason = 'paid'": "the events of every withdrawal are one unbroken story from its request on",
    "UPDATE withdrawal_events SET reason = 'paid' WHERE from_status IS NULL": "the events of every withdrawal are one unbroken story from its request on",
    "UPDATE withdrawals SET due_at = now() - interval '1 hour' WHERE status = 'pending'": "nothing due was left lying for 600 seconds",
    "DELETE FROM wallets": "credited = balances + held + paid",
}


@pytest.fixture
def eventful(world: World) -> World:
    world.paid()
    world.paid(upi_id="fail.bank_account_closed@sim")
    world.request()
    return world


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_fault_is_found(eventful: World, plant: str) -> None:
    assert checks.run().holds
    eventful.sql_without_rules(plant)
    told = [finding.check.truth for finding in checks.run().findings]
    assert PLANTS[plant] in told
    eventful.broken_on_purpose = True


def test_two_live_payouts_are_found(eventful: World) -> None:
    eventful.sql("DROP INDEX uq_one_live_attempt_per_withdrawal")
    eventful.sql(
        "INSERT INTO payout_attempts (id, withdrawal_id, number, request_body, state, sent_as)"
        " SELECT gen_random_uuid(), withdrawal_id, 2, '', 'unknown', '' FROM payout_attempts WHERE state = 'paid'"
    )
    assert "no withdrawal has two live payouts" in [finding.check.truth for finding in checks.run().findings]
    eventful.broken_on_purpose = True


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("ck_withdrawals_due_iff_not_final", "due_at = NULL"),
        ("ck_withdrawals_waits_for_a_reason", "status_reason = NULL"),
        ("ck_withdrawals_waits_until_a_time", "expected_by = NULL"),
    ],
)
def test_what_waits_without_a_word_is_found(eventful: World, rule: str, change: str) -> None:
    eventful.sql(f"ALTER TABLE withdrawals DROP CONSTRAINT {rule}")
    eventful.sql_without_rules(f"UPDATE withdrawals SET {change} WHERE status = 'pending'")
    told = [finding.check.truth for finding in checks.run().findings]
    assert told == ["everything that waits says why and until when"]
    eventful.broken_on_purpose = True


def test_a_promise_without_a_time_is_given_one_by_the_migration(eventful: World) -> None:
    from alembic import command

    from shared.migrations import config, migrate
    from shared.settings import settings

    url = settings().database_url.get_secret_value()
    command.downgrade(config(url), "0014")
    eventful.sql("UPDATE withdrawals SET expected_by = NULL WHERE status = 'pending'")
    migrate(url)
    [row] = eventful.sql("SELECT expected_by, due_at FROM withdrawals WHERE status = 'pending'")
    assert row.expected_by == row.due_at
    eventful.altered = True


def test_the_command_proves_and_counts(eventful: World) -> None:
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0, result.output
    numbers = dict(line.split() for line in result.output.splitlines()[:6])
    assert numbers == {
        "credited": "4,000", "balances": "3,000", "held": "500", "paid": "500", "refunded": "500", "withdrawals": "3"
    }  # fmt: skip
    assert "BROKEN" not in result.output


def test_the_command_names_what_does_not_add_up(eventful: World) -> None:
    eventful.sql_without_rules("UPDATE wallets SET balance_coins = balance_coins + 1")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert "BROKEN  promise 1: every balance is the sum of its journal" in result.output
    assert "not so for user123" in result.output
    eventful.broken_on_purpose = True


def test_the_command_says_so_when_the_database_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.point_database_at_nothing(monkeypatch)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1 and "cannot be reached" in result.output
    world.point_database_back(monkeypatch)


def test_the_migrations_and_the_models_tell_the_same(world: World) -> None:
    from alembic import command

    from shared.migrations import config
    from shared.settings import settings

    command.check(config(settings().database_url.get_secret_value()))


def test_a_migration_can_be_taken_back_only_while_there_is_no_money(world: World) -> None:
    from alembic import command

    from shared.migrations import config, migrate
    from shared.settings import settings

    url = settings().database_url.get_secret_value()
    command.downgrade(config(url), "base")
    migrate(url)
    world.credit()
    with pytest.raises(RuntimeError, match="journal"):
        command.downgrade(config(url), "base")
    assert world.balance() == 2000
