"""Rows per second of `payouts import`, and its peak memory.

python -m bench.importing [ROWS]        a dry run, the import, and the same file again
"""

import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.ours import NOT_DUE
from bench.service import give_coins
from sandbox.stack import Stack

USERS = 1000


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with Stack(NOT_DUE, flower=False) as stack, tempfile.TemporaryDirectory() as directory:
        give_coins(stack.info()["database_url"], USERS)
        prizes = Path(directory) / "prizes.csv"
        with prizes.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "amount", "upi_id", "reference"])
            writer.writerows([f"user{n % USERS + 1}", 100, "user@okaxis", f"prize-{n}"] for n in range(rows))
        for options in (["--dry-run"], [], []):
            started_at = time.monotonic()
            command = [sys.executable, "-m", "cli", "import", str(prizes), *options]
            process = subprocess.run(command, env=stack.env, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - started_at
            summary = process.stderr or process.stdout.splitlines()[0]
            print(f"{seconds:7.1f} s  {rows / seconds:8,.0f} rows/s  {summary}", flush=True)
        peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"peak memory of a child process: {peak_kib / 1024:.0f} MB")


if __name__ == "__main__":
    main()
