"""Adjustments of coins by people: by one person up to a daily limit, above it by two; once, and as proposed."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from shared.coins import adjustments, wallet
from shared.db.transactions import transaction
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.ids import new_id
from shared.models import Adjustment
from tests.cli.test_operations import output_of, payouts
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("one_day", "people")

ASHA = "operator:asha"
RAVI = "operator:ravi"


@pytest.fixture
def funded(world: World) -> World:
    world.credit(coins=5000)
    return world


def propose(coins: int, actor: str = ASHA, user_id: str = "user123", **fields: object) -> Adjustment:
    return adjustments.propose(user_id, coins, reason="a mistake", actor=actor, **fields)  # type: ignore[arg-type]


def refused(function, *args: object, **fields: object) -> str:
    """The code of the error."""
    with pytest.raises(PayoutsError) as raised:
        function(*args, **fields)
    return raised.value.code


def lifetime(world: World, user_id: str = "user123") -> int:
    return world.sql("SELECT lifetime_coins FROM wallets WHERE user_id = :u", u=user_id)[0].lifetime_coins


def test_one_person_can_make_a_small_adjustment_at_once(funded: World) -> None:
    done = propose(-400)
    assert (done.outcome, done.decided_by, funded.balance(), lifetime(funded)) == (
        "approved",
        ASHA,
        4600,
        5000,
    )
    row = funded.sql("SELECT * FROM coin_transactions WHERE kind = 'adjustment'")[0]
    assert (row.coins, row.balance_after, row.reference, row.actor) == (-400, 4600, str(done.id), ASHA)
    propose(600)
    assert funded.balance() == 5200


def test_an_adjustment_above_the_limit_takes_two_people(funded: World) -> None:
    proposal = propose(1001)
    assert (proposal.outcome, funded.balance()) == (None, 5000)
    assert refused(adjustments.approve, proposal.id, actor=ASHA) == "same_person"
    assert adjustments.approve(proposal.id, actor=RAVI).outcome == "approved"
    assert funded.balance() == 6001
    for decide in (adjustments.approve, adjustments.reject):
        assert refused(decide, proposal.id, actor=RAVI) == "adjustment_decided"
    assert funded.balance() == 6001


def test_small_adjustments_add_up_to_the_daily_limit_of_each_person(funded: World) -> None:
    with ThreadPoolExecutor(10) as threads:
        adjusted = list(threads.map(lambda _: propose(-200), range(10)))
    assert sum(adjustment.outcome == "approved" for adjustment in adjusted) == 5
    assert funded.balance() == 4000
    assert propose(-200, RAVI).outcome == "approved", "each person has their own limit"
    # Decisions are evidence: `payouts check` reports the change below.
    funded.broken_on_purpose = True
    funded.sql_without_rules("UPDATE adjustments SET decided_at = decided_at - interval '1 day'")
    assert propose(-200).outcome == "approved", "the limit is per day"


def test_no_one_adjusts_their_own_wallet(funded: World) -> None:
    funded.operators("user123")
    funded.operators("vera", user_id="user123")
    proposal = propose(5000)
    for owner in ("operator:User123", "operator:vera"):
        assert refused(propose, 1, actor=owner) == "own_wallet", "proposing is refused too"
        assert refused(adjustments.approve, proposal.id, actor=owner) == "own_wallet"
    assert adjustments.approve(proposal.id, actor=RAVI).decided_by == RAVI


def test_a_raised_limit_does_not_apply_to_open_proposals(
    funded: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = propose(2000)
    monkeypatch.setenv("ADJUST_ALONE_MAX_COINS", "100000")
    funded.forget_settings()
    assert refused(adjustments.approve, proposal.id, actor=ASHA) == "same_person"
    with pytest.raises(DBAPIError, match="two_people"):
        funded.sql(
            "UPDATE adjustments SET outcome = 'approved', decided_by = proposed_by, decided_at = now()"
        )


def test_an_adjustment_never_takes_more_than_the_balance(funded: World) -> None:
    assert refused(propose, -5001) == "insufficient_coins"
    with transaction() as session:
        assert adjustments.open_proposals(session) == [], "it could never be carried out"
    proposal = propose(-5000)
    funded.request(coins=500)
    assert refused(adjustments.approve, proposal.id, actor=RAVI) == "insufficient_coins"
    assert funded.balance() == 4500
    funded.credit(coins=1000, reference="more")
    adjustments.approve(proposal.id, actor=RAVI)
    assert funded.balance() == 500


def test_needs_two_says_beforehand_whether_two_people_are_needed(funded: World) -> None:
    def needs_two(coins: int) -> bool:
        with transaction() as session:
            return adjustments.needs_two(session, "user123", coins, actor=ASHA)

    assert (needs_two(1000), needs_two(-1001)) == (False, True)
    propose(600)
    assert (needs_two(400), needs_two(-401)) == (False, True)
    assert refused(needs_two, -5601) == "insufficient_coins"


def test_open_proposals_can_be_filtered_by_user_and_paged(funded: World) -> None:
    funded.credit(user_id="other")
    first = propose(2000)
    second = propose(3000)
    third = propose(4000, user_id="other")
    with transaction() as session:
        assert [row.id for row in adjustments.open_proposals(session, user_id="other", limit=1)] == [third.id]
        after = (first.proposed_at, first.id)
        assert [row.id for row in adjustments.open_proposals(session, after=after)] == [second.id, third.id]
        assert adjustments.count_open(session) == 3


def test_a_rejected_adjustment_moves_nothing(funded: World) -> None:
    proposal = propose(9000)
    assert adjustments.reject(proposal.id, actor=ASHA).outcome == "rejected"
    assert refused(adjustments.approve, proposal.id, actor=RAVI) == "adjustment_decided"
    assert funded.balance() == 5000


def test_a_double_click_makes_one_adjustment(funded: World) -> None:
    key = new_id()
    with ThreadPoolExecutor(8) as threads:
        adjusted = list(threads.map(lambda _: propose(300, key=key), range(8)))
    assert {adjustment.id for adjustment in adjusted} == {key} and funded.balance() == 5300
    assert refused(propose, 301, key=key) == "key_reused"
    large = propose(3000)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: _approve(large.id), range(8)))
    assert outcomes.count(True) == 1 and funded.balance() == 8300


def _approve(adjustment_id: UUID) -> bool:
    try:
        adjustments.approve(adjustment_id, actor=RAVI)
    except BadRequest:
        return False
    return True


def test_a_credit_counts_once_per_reference_and_creates_the_wallet(world: World) -> None:
    propose(500, user_id="new", reference="goodwill-1")
    assert (world.balance("new"), lifetime(world, "new")) == (500, 500)
    assert refused(propose, 500, user_id="new", reference="goodwill-1") == "reference_reused"
    large = propose(5000, user_id="new", reference="goodwill-2")
    adjustments.approve(large.id, actor=RAVI)
    assert world.balance("new") == 5500


def test_any_valid_user_id_can_be_credited(world: World) -> None:
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # joined by characters that do not print
    propose(500, user_id=family, reference="goodwill-1")
    assert world.balance(family) == 500


@pytest.mark.parametrize(
    ("coins", "fields", "code"),
    [
        (0, {}, "invalid_coins"),
        (10**13, {}, "invalid_coins"),
        (-5, {"reference": "x"}, "invalid_coins"),
        (5, {"reference": "x" * 201}, "invalid_field"),
        (5, {"reference": " "}, "invalid_field"),
        (5, {"user_id": "u" * 501, "reference": "x"}, "invalid_field"),
        (5, {"user_id": "a\x1fb", "reference": "x"}, "invalid_field"),
    ],
)
def test_invalid_adjustments_are_refused(world: World, coins: int, fields: dict[str, str], code: str) -> None:
    assert refused(propose, coins, **fields) == code
    with pytest.raises(NotFound):
        propose(5, user_id="nobody")
    with pytest.raises(BadRequest, match="reason"):
        adjustments.propose("user123", 5, reason=" ", actor=ASHA)
    with pytest.raises(NotFound):
        adjustments.approve(new_id(), actor=ASHA)


def test_the_database_refuses_adjustments_without_a_decision(funded: World) -> None:
    proposal = propose(2000)
    insert = (
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
        " VALUES ('user123', 'adjustment', 2000, 7000, '{}', 'me')"
    )
    for reference in (proposal.id, new_id(), "x"):
        with pytest.raises(DBAPIError, match="nobody decided"):
            funded.sql(insert.format(reference))
    for change in ("coins = 3000", "user_id = 'me'", "needs_two = false"):
        with pytest.raises(DBAPIError, match="never changes"):
            funded.sql(f"UPDATE adjustments SET {change}")
    adjustments.approve(proposal.id, actor=RAVI)
    with transaction() as session, pytest.raises(DBAPIError, match="uq_one_line_per_adjustment"):
        wallet.adjust(session, session.get_one(Adjustment, proposal.id), ASHA)
    assert funded.balance() == 7000


def test_finance_credits_and_adjusts_from_the_shell(funded: World) -> None:
    reason = ("--reason", "goodwill", "--as", "asha")
    assert "Done: +500" in output_of("wallet", "credit", "user123", 500, "--reference", "g-1", *reason)
    assert "Done: -300" in output_of("wallet", "adjust", "user123", *reason, "--", -300)
    assert funded.balance() == 5200
    output = output_of("wallet", "adjust", "user123", 4000, *reason)
    proposal = output.split()[-1]
    assert proposal in output_of("wallet", "proposals")
    assert payouts("wallet", "approve", proposal, "--as", "asha").exit_code == 1
    assert "Done: +4,000" in output_of("wallet", "approve", proposal, "--as", "ravi")
    other = output_of("wallet", "adjust", "user123", *reason, "--", -4000).split()[-1]
    output_of("wallet", "reject", other, "--as", "ravi")
    assert (funded.balance(), output_of("wallet", "proposals").strip()) == (9200, "No open proposals.")


def test_a_new_credit_can_change_a_users_email_and_the_change_is_audited(world: World) -> None:
    def credit(reference: str, email: str) -> None:
        with transaction() as session:
            wallet.credit(
                session, user_id="user123", coins=100, reference=reference, actor="app:quiz", email=email
            )

    credit("1", "old@example.com")
    assert world.sql("SELECT FROM audit_log") == []
    credit("2", "new@example.com")
    credit("1", "old@example.com")  # a repeated credit changes nothing
    assert world.sql("SELECT email FROM wallets")[0].email == "new@example.com"
    [entry] = world.sql("SELECT * FROM audit_log")
    assert (entry.operator, entry.action, entry.subject) == ("app:quiz", "contact_changed", "user123")
    assert entry.data == {"before": {"email": "old@example.com"}, "after": {"email": "new@example.com"}}
