"""`make test` leaves no exhaustive test out for ever."""

from tests.support import tiers


def test_each_exhaustive_test_belongs_to_exactly_one_share() -> None:
    for number in range(200):
        path = f"tests/e2e/test_{number % 20}.py"
        shares = [
            share for share in range(tiers.SHARES) if tiers.is_in_share(path, f"{path}::test_{number}", share)
        ]
        assert len(shares) == 1


def test_the_shares_of_a_test_cover_all_of_its_cases() -> None:
    cases = list(range(500))
    shares = [tiers.cases_in_share(cases, share) for share in range(tiers.SHARES)]
    assert all({0, 499} <= set(share) for share in shares)
    middles = [case for share in shares for case in share[1:-1]]
    assert sorted(middles) == cases[1:-1]
