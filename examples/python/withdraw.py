#!/usr/bin/env python3
"""Request a withdrawal and follow it to its end.

    PAYOUTS_URL=http://localhost:8000 PAYOUTS_KEY=cpk_… withdraw.py user123 500 user@okhdfcbank --credit 2000

Exit status: 0 paid, 1 not paid (refused, failed, cancelled), 2 no result yet: run it again with --key.
"""

import argparse
import os
import sys

from coin_payouts import CoinPayouts, NoAccess, PayoutsError, Refused, Withdrawal, new_key


def main() -> int:
    """Run, and return the exit status."""
    given = arguments()
    if "PAYOUTS_KEY" not in os.environ:
        sys.exit("Set PAYOUTS_KEY: create a key with `payouts keys create APP`.")
    payouts = CoinPayouts(os.environ.get("PAYOUTS_URL", "http://localhost:8000"), os.environ["PAYOUTS_KEY"])
    # An app stores the key in its database, in the transaction that stores the user's request.
    print(f"idempotency key {given.key}", flush=True)
    try:
        if given.credit:
            credit(payouts, given.user_id, given.credit, reference=f"credit-{given.key}")
        taken = payouts.withdraw(given.user_id, given.coins, given.upi_id, idempotency_key=given.key)
        print(
            f"withdrawal {taken.withdrawal_id}: {taken.amount} coins, ₹{taken.rupees_amount:.2f}", flush=True
        )
        last = None
        for last in payouts.follow(taken.withdrawal_id, seconds=given.seconds):
            show(last)
    except PayoutsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1 if isinstance(error, Refused) else 2
    if last is None or not last.is_final:
        return 2
    return 0 if last.status == "completed" else 1


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Request a withdrawal and follow it to its end.")
    parser.add_argument("user_id")
    parser.add_argument("coins", type=int)
    parser.add_argument("upi_id")
    parser.add_argument("--credit", type=int, metavar="COINS", help="credit the user with COINS first")
    parser.add_argument("--key", default=new_key(), help="the idempotency key of a run that got no answer")
    parser.add_argument("--seconds", type=float, default=300, help="how long to follow it, in seconds (300)")
    return parser.parse_args()


def credit(payouts: CoinPayouts, user_id: str, coins: int, *, reference: str) -> None:
    """Credit coins if the key has the scope `credit`."""
    try:
        given = payouts.credit(user_id, coins, reference=reference, reason="An example")
    except NoAccess as error:
        if error.http_status != 403:
            raise
        print(f"no coins credited: {error}", flush=True)
    else:
        print(f"{given.coins} coins credited, balance {given.available_coins}", flush=True)


def show(withdrawal: Withdrawal) -> None:
    """Print the status and the sentence that a user would read."""
    words = withdrawal.failure_reason or withdrawal.status_message
    if withdrawal.status == "completed":
        words = f"paid, bank reference {withdrawal.utr}"
    print(f"{withdrawal.status}: {words}" if words else withdrawal.status, flush=True)


if __name__ == "__main__":
    sys.exit(main())
