"""Rows per second that `payouts import` takes, and the most memory that it had.

python -m bench.importing [ROWS]        a dry run, the import, and the same file again
"""

import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.creates import SETTINGS, USERS, give_coins
from sandbox.stack import Stack


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with Stack(SETTINGS, flower=False) as stack, tempfile.TemporaryDirectory() as directory:
        give_coins(stack.info()["database_url"])
        prizes = Path(directory) / "prizes.csv"
        with prizes.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "amount", "upi_id", "reference"])
            writer.writerows([f"user{n % USERS + 1}", 100, "user@okaxis", f"prize-{n}"] for n in range(rows))
        for words in (["--dry-run"], [], []):
            began = time.monotonic()
            command = [sys.executable, "-m", "shared.cli", "import", str(prizes), *words]
            done = subprocess.run(command, env=stack.env, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - began
            told = done.stderr or done.stdout.splitlines()[0]
            print(f"{seconds:7.1f} s  {rows / seconds:8,.0f} rows/s  {told}", flush=True)
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"most memory of any child process: {most / 1024:.0f} MB")


if __name__ == "__main__":
    main()
