"""Failure reasons: each has a message for the user and a policy."""

from shared.providers import failures


def test_every_failure_reason_has_a_message_for_the_user() -> None:
    for reason in [*failures.POLICIES, "something new", None]:
        assert failures.user_message(reason).endswith(".")


def test_an_unknown_failure_reason_is_refunded() -> None:
    assert {failures.policy_for(reason).action for reason in ("something new", None, "")} == {"refund"}


def test_retries_wait_and_their_number_is_limited() -> None:
    for reason, policy in failures.POLICIES.items():
        if policy.action == "retry":
            assert policy.wait_minutes >= 5 and 2 <= policy.max_attempts <= 100, reason
        else:
            assert policy.max_attempts == 1 and policy.fault_domain == "nobody", reason
