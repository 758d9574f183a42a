"""Coins that people give or take: alone up to a limit a day, above it two; once, and as it was proposed."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from shared import adjusting, db, wallet
from shared.errors import BadRequest, NotFound, PayoutsError
from shared.ids import new_id
from shared.models import Adjustment
from tests.integration.test_operating import payouts, said
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_day", "people")

ASHA, RAVI = "operator:asha", "operator:ravi"


@pytest.fixture
def rich(world: World) -> World:
    world.credit(coins=5000)
    return world


def propose(coins: int, actor: str = ASHA, user_id: str = "user123", **about: object) -> Adjustment:
    return adjusting.propose(user_id, coins, reason="a mistake", actor=actor, **about)  # type: ignore[arg-type]


def refused(verb, *words: object, **about: object) -> str:
    with pytest.raises(PayoutsError) as told:
        verb(*words, **about)
    return told.value.code


def lifetime(world: World, user_id: str = "user123") -> int:
    return world.sql("SELECT lifetime_coins FROM wallets WHERE user_id = :u", u=user_id)[0].lifetime_coins


def test_one_person_may_adjust_a_little_and_it_is_done_at_once(rich: World) -> None:
    made = propose(-400)
    assert (made.outcome, made.decided_by, rich.balance(), lifetime(rich)) == ("approved", ASHA, 4600, 5000)
    line = rich.sql("SELECT * FROM coin_transactions WHERE kind = 'adjustment'")[0]
    assert (line.coins, line.balance_after, line.reference, line.actor) == (-400, 4600, str(made.id), ASHA)
    propose(600)
    assert rich.balance() == 5200


def test_above_the_limit_it_takes_two(rich: World) -> None:
    made = propose(1001)
    assert (made.outcome, rich.balance()) == (None, 5000)
    assert refused(adjusting.approve, made.id, actor=ASHA) == "same_person"
    assert adjusting.approve(made.id, actor=RAVI).outcome == "approved"
    assert rich.balance() == 6001
    for again in (adjusting.approve, adjusting.reject):
        assert refused(again, made.id, actor=RAVI) == "adjustment_decided"
    assert rich.balance() == 6001


def test_many_small_ones_in_a_day_are_a_large_one(rich: World) -> None:
    with ThreadPoolExecutor(10) as threads:
        made = list(threads.map(lambda _: propose(-200), range(10)))
    assert sum(one.outcome == "approved" for one in made) == 5
    assert rich.balance() == 4000
    assert propose(-200, RAVI).outcome == "approved", "the limit is each person's"
    rich.broken_on_purpose = (
        True  # decisions are evidence: `payouts check` names what is done to them by hand
    )
    rich.sql_without_rules("UPDATE adjustments SET decided_at = decided_at - interval '1 day'")
    assert propose(-200).outcome == "approved", "and a day's"


def test_nobody_gives_coins_to_themselves(rich: World) -> None:
    rich.operators("user123")
    rich.operators("vera", user_id="user123")
    made = propose(5000)
    for own in ("operator:User123", "operator:vera"):
        assert refused(propose, 1, actor=own) == "own_wallet", "nor proposes it"
        assert refused(adjusting.approve, made.id, actor=own) == "own_wallet"
    assert adjusting.approve(made.id, actor=RAVI).decided_by == RAVI


def test_a_limit_that_is_raised_later_lets_nothing_slip_through(
    rich: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = propose(2000)
    monkeypatch.setenv("ADJUST_ALONE_MAX_COINS", "100000")
    rich.forget_settings()
    assert refused(adjusting.approve, made.id, actor=ASHA) == "same_person"
    with pytest.raises(DBAPIError, match="two_people"):
        rich.sql("UPDATE adjustments SET outcome = 'approved', decided_by = proposed_by, decided_at = now()")


def test_no_more_is_taken_than_there_is(rich: World) -> None:
    assert refused(propose, -5001) == "insufficient_coins"
    with db.transaction() as session:
        assert adjusting.waiting(session) == [], "nobody could ever carry it out"
    made = propose(-5000)
    rich.request(coins=500)
    assert refused(adjusting.approve, made.id, actor=RAVI) == "insufficient_coins"
    assert rich.balance() == 4500
    rich.credit(coins=1000, reference="more")
    adjusting.approve(made.id, actor=RAVI)
    assert rich.balance() == 500


def test_whether_it_takes_two_is_told_before(rich: World) -> None:
    def foretold(coins: int) -> bool:
        with db.transaction() as session:
            return adjusting.needs_two(session, "user123", coins, actor=ASHA)

    assert (foretold(1000), foretold(-1001)) == (False, True)
    propose(600)
    assert (foretold(400), foretold(-401)) == (False, True)
    assert refused(foretold, -5601) == "insufficient_coins"


def test_those_of_one_user_are_found_however_many_wait(rich: World) -> None:
    rich.credit(user_id="other")
    first, second, third = propose(2000), propose(3000), propose(4000, user_id="other")
    with db.transaction() as session:
        assert [one.id for one in adjusting.waiting(session, user_id="other", limit=1)] == [third.id]
        after = (first.proposed_at, first.id)
        assert [one.id for one in adjusting.waiting(session, after=after)] == [second.id, third.id]
        assert adjusting.number_waiting(session) == 3


def test_a_rejected_one_moves_nothing(rich: World) -> None:
    made = propose(9000)
    assert adjusting.reject(made.id, actor=ASHA).outcome == "rejected"
    assert refused(adjusting.approve, made.id, actor=RAVI) == "adjustment_decided"
    assert rich.balance() == 5000


def test_a_doubled_click_is_one(rich: World) -> None:
    key = new_id()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: propose(300, key=key), range(8)))
    assert {one.id for one in made} == {key} and rich.balance() == 5300
    assert refused(propose, 301, key=key) == "key_reused"
    large = propose(3000)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: _approved(large.id), range(8)))
    assert outcomes.count(True) == 1 and rich.balance() == 8300


def _approved(adjustment_id: UUID) -> bool:
    try:
        adjusting.approve(adjustment_id, actor=RAVI)
    except BadRequest:
        return False
    return True


def test_a_credit_counts_once_for_its_reference_and_makes_the_wallet(world: World) -> None:
    propose(500, user_id="new", reference="goodwill-1")
    assert (world.balance("new"), lifetime(world, "new")) == (500, 500)
    assert refused(propose, 500, user_id="new", reference="goodwill-1") == "reference_reused"
    large = propose(5000, user_id="new", reference="goodwill-2")
    adjusting.approve(large.id, actor=RAVI)
    assert world.balance("new") == 5500


def test_who_may_be_a_user_may_be_given_coins(world: World) -> None:
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # joined by what nobody can print
    propose(500, user_id=family, reference="goodwill-1")
    assert world.balance(family) == 500


@pytest.mark.parametrize(
    ("coins", "about", "code"),
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
def test_what_makes_no_sense_is_refused(world: World, coins: int, about: dict[str, str], code: str) -> None:
    assert refused(propose, coins, **about) == code
    with pytest.raises(NotFound):
        propose(5, user_id="nobody")
    with pytest.raises(BadRequest, match="reason"):
        adjusting.propose("user123", 5, reason=" ", actor=ASHA)
    with pytest.raises(NotFound):
        adjusting.approve(new_id(), actor=ASHA)


def test_the_database_refuses_what_nobody_decided(rich: World) -> None:
    waits = propose(2000)
    by_hand = (
        "INSERT INTO coin_transactions (user_id, kind, coins, balance_after, reference, actor)"
        " VALUES ('user123', 'adjustment', 2000, 7000, '{}', 'me')"
    )
    for reference in (waits.id, new_id(), "x"):
        with pytest.raises(DBAPIError, match="nobody decided"):
            rich.sql(by_hand.format(reference))
    for change in ("coins = 3000", "user_id = 'me'", "needs_two = false"):
        with pytest.raises(DBAPIError, match="never changes"):
            rich.sql(f"UPDATE adjustments SET {change}")
    adjusting.approve(waits.id, actor=RAVI)
    with db.transaction() as session, pytest.raises(DBAPIError, match="uq_one_line_per_adjustment"):
        wallet.adjust(session, session.get_one(Adjustment, waits.id), ASHA)
    assert rich.balance() == 7000


def test_finance_credits_and_adjusts_at_a_shell(rich: World) -> None:
    why = ("--reason", "goodwill", "--as", "asha")
    assert "Done: +500" in said("wallet", "credit", "user123", 500, "--reference", "g-1", *why)
    assert "Done: -300" in said("wallet", "adjust", "user123", *why, "--", -300)
    assert rich.balance() == 5200
    told = said("wallet", "adjust", "user123", 4000, *why)
    proposal = told.split()[-1]
    assert proposal in said("wallet", "proposals")
    assert payouts("wallet", "approve", proposal, "--as", "asha").exit_code == 1
    assert "Done: +4000" in said("wallet", "approve", proposal, "--as", "ravi")
    other = said("wallet", "adjust", "user123", *why, "--", -4000).split()[-1]
    said("wallet", "reject", other, "--as", "ravi")
    assert (rich.balance(), said("wallet", "proposals").strip()) == (9200, "Nothing waits.")


def test_how_a_user_is_reached_changes_with_a_new_credit_and_leaves_a_line(world: World) -> None:
    def credit(reference: str, email: str) -> None:
        with db.transaction() as session:
            wallet.credit(
                session, user_id="user123", coins=100, reference=reference, actor="app:quiz", email=email
            )

    credit("1", "old@example.com")
    assert world.sql("SELECT FROM audit_log") == []
    credit("2", "new@example.com")
    credit("1", "old@example.com")  # sent again: it stands already, and changes nothing
    assert world.sql("SELECT email FROM wallets")[0].email == "new@example.com"
    [line] = world.sql("SELECT * FROM audit_log")
    assert (line.operator, line.action, line.subject) == ("app:quiz", "contact_changed", "user123")
    assert line.data == {"before": {"email": "old@example.com"}, "after": {"email": "new@example.com"}}
