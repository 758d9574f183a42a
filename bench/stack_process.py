"""Runs one commit's own stack: `python -P stack_process.py OPTIONS`, with that commit's root in PYTHONPATH.

It imports nothing of this commit. OPTIONS is JSON: `settings`, `workers`, `api_workers`, `flower`. It prints
one line of JSON when everything is ready, and stops the stack when its input ends: also if its parent is
killed.
"""

import json
import sys

from sandbox.stack import Stack


def main() -> None:
    """Start, report, wait."""
    options = json.loads(sys.argv[1])
    with Stack(options.pop("settings"), **options) as stack:
        sys.stdout.write(json.dumps({"info": stack.info(), "env": stack.env}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
