"""Which tests a run includes: a few for a newcomer, every truth once, or everything.

    check   half a minute: tests that need no service, and one withdrawal from request to end
    test    every truth at its cheapest level, and a share of the exhaustive tests, a different one for each commit
    all     everything: a kill at each line, each scenario end to end, every page in a browser, chaos

`@pytest.mark.exhaustive` marks a test that repeats at a higher level what a cheaper one shows. Files that are
named on the command line run with all of their tests.
"""

import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

from tests.support.paths import ROOT

CHECK = "check"
TEST = "test"
ALL = "all"
# A run includes a quarter of the exhaustive tests of one file: the tests of a file often share a system, whose start
# costs more than they do. So each share takes about as long as any other, and in time each test is in one.
FILE_PARTS = 4
CASE_SHARES = 36
SERVICES = {"databases", "redis_url", "simulator_process"}  # fixtures that start a server
# Tests of the modules and of the house rules. The other folders start whole systems.
QUICK = ("tests/shared", "tests/api", "tests/cli", "tests/worker", "tests/test_house.py")
SLOW_TO_COLLECT = "tests/api/openapi"  # schemathesis takes five seconds to read the document
LIFE = (
    "tests/shared/withdrawals/test_withdrawals_life.py",
    "tests/shared/withdrawals/test_record_unknown.py",
)

T = TypeVar("T")
_tier = ALL


def choose(tier: str) -> None:
    """Set the tier of this process."""
    global _tier  # noqa: PLW0603  one choice for the whole run
    _tier = tier


def is_collected(path: str) -> bool:
    """True if the run reads this file or folder: reading all of them takes as long as a quick run."""
    if _tier != CHECK or QUICK[0].startswith(path):
        return True
    return path.startswith(QUICK) and not path.startswith(SLOW_TO_COLLECT)


def is_chosen(path: str, fixtures: Sequence[str]) -> bool:
    """True if the run includes this test, which is not exhaustive."""
    return _tier != CHECK or SERVICES.isdisjoint(fixtures) or path in LIFE


def chosen_of(exhaustive: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the ids of the exhaustive tests that the run includes, of all of them by file."""
    if _tier == ALL:
        return {test for tests in exhaustive.values() for test in tests}
    return set() if _tier == CHECK or not exhaustive else set(in_share(exhaustive, _share()))


def in_share(exhaustive: Mapping[str, Sequence[str]], share: int) -> list[str]:
    """Return the tests of one share. There are FILE_PARTS for each file; the numbers beyond begin again."""
    part, place = divmod(share, len(exhaustive))
    return sorted(exhaustive[sorted(exhaustive)[place]])[part % FILE_PARTS :: FILE_PARTS]


def cases_of_this_run(cases: Sequence[T]) -> list[T]:
    """Return the cases of an exhaustive test that this run includes; always the first and the last."""
    return list(cases) if _tier == ALL else cases_in_share(cases, _share() % CASE_SHARES)


def cases_in_share(cases: Sequence[T], share: int) -> list[T]:
    """Return the cases of one of CASE_SHARES, and the first and the last."""
    return [cases[0], *cases[1:-1][share::CASE_SHARES], cases[-1]]


@cache
def _share() -> int:
    """Return the number of this run's share. It depends on the commit, so every machine tests the same one."""
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(result.stdout.strip() or "0", 16)
