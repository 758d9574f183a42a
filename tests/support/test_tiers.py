"""`make test` leaves no exhaustive test out for ever."""

from tests.support import tiers

TESTS = {f"tests/e2e/test_{name}.py": [f"{name}::{number}" for number in range(name)] for name in range(1, 9)}


def test_each_exhaustive_test_belongs_to_exactly_one_share() -> None:
    shares = [tiers.in_share(TESTS, share) for share in range(len(TESTS) * tiers.FILE_PARTS)]
    assert sorted(test for share in shares for test in share) == sorted(
        test for tests in TESTS.values() for test in tests
    )
    assert all(len({test.partition("::")[0] for test in share}) <= 1 for share in shares), "one file"


def test_any_commit_chooses_a_share() -> None:
    assert tiers.in_share(TESTS, 0xFFFFFFFF) is not None


def test_the_shares_of_a_test_cover_all_of_its_cases() -> None:
    cases = list(range(500))
    shares = [tiers.cases_in_share(cases, share) for share in range(tiers.CASE_SHARES)]
    assert all({0, 499} <= set(share) for share in shares)
    middles = [case for share in shares for case in share[1:-1]]
    assert sorted(middles) == cases[1:-1]
