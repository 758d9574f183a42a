"""Which tests a run includes: a few for a newcomer, every truth once, or everything.

    check   half a minute: tests that need no service, and one withdrawal from request to end
    test    every truth at its cheapest level, and a share of the exhaustive tests, a different one for each commit
    all     everything: a kill at each line, each scenario end to end, every page in a browser, chaos

`@pytest.mark.exhaustive` marks a test that repeats at a higher level what a cheaper one shows. Files that are
named on the command line run with all of their tests.
"""

import hashlib
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from tests.support.paths import ROOT

CHECK = "check"
TEST = "test"
ALL = "all"
# After about 36 commits, each exhaustive test has run in `make test`. A run includes a third of the exhaustive tests
# of every twelfth file: the tests of a file often share a system, whose start costs more than they do.
FILE_SHARES = 12
TEST_SHARES = 3
SHARES = FILE_SHARES * TEST_SHARES
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


def is_chosen(path: str, node_id: str, fixtures: Sequence[str], *, is_exhaustive: bool) -> bool:
    """True if this test belongs to the run."""
    if _tier == ALL:
        return True
    if _tier == CHECK:
        return not is_exhaustive and (SERVICES.isdisjoint(fixtures) or path in LIFE)
    return not is_exhaustive or is_in_share(path, node_id, _share())


def is_in_share(path: str, node_id: str, share: int) -> bool:
    """True if this exhaustive test belongs to the share, one of SHARES."""
    test_share, file_share = divmod(share, FILE_SHARES)
    return _spread(path, FILE_SHARES) == file_share and _spread(node_id, TEST_SHARES) == test_share


def cases_of_this_run(cases: Sequence[T]) -> list[T]:
    """Return the cases of an exhaustive test that this run includes; always the first and the last."""
    return list(cases) if _tier == ALL else cases_in_share(cases, _share())


def cases_in_share(cases: Sequence[T], share: int) -> list[T]:
    """Return the cases of one of SHARES, and the first and the last."""
    return [cases[0], *cases[1:-1][share::SHARES], cases[-1]]


def _spread(name: str, shares: int) -> int:
    """Return a share for this name, the same in every process. (CRC-32 puts similar names into one share.)"""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()) % shares


@cache
def _share() -> int:
    """Return the share of this run. It depends on the commit, so every machine tests the same one."""
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(result.stdout.strip() or "0", 16) % SHARES
