"""States and reasons: complete, and with a message for users and operators."""

import re

from shared import states
from shared.states import EDGES, FINAL, LIVE, OPEN, WAITING, AttemptState, Reason, Status


def test_the_sets_of_states_are_consistent() -> None:
    assert set(Status) == FINAL | OPEN and not FINAL & OPEN
    assert {source for source, _ in EDGES} == {Status.PENDING, Status.PROCESSING, Status.COMPLETED}
    assert set(AttemptState) - LIVE == {AttemptState.REFUSED, AttemptState.FAILED, AttemptState.REVERSED}


def test_every_reason_to_wait_has_a_message_and_an_expected_time() -> None:
    assert set(WAITING) == set(Reason)
    for sentence, seconds in WAITING.values():
        assert sentence.endswith(".") and seconds > 0
    assert states.status_message("sending") == WAITING[Reason.SENDING][0]
    assert states.status_message("bank_account_closed") is None
    assert states.status_message(None) is None


def test_messages_for_operators_contain_no_words_for_users() -> None:
    for reason in Reason:
        message = states.operator_message(reason)
        assert message and not re.search(
            r"\b(You can|you can|your coins|your safety|[Yy]our UPI|An admin)\b", message
        )
    assert states.operator_message("paced") == states.status_message("paced")
    assert states.operator_message("bank_account_closed") is states.operator_message(None) is None
