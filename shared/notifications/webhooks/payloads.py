"""The body of a delivery: JSON text, built once and sent unchanged at each attempt."""

import json
from typing import Any

from sqlalchemy import Row

from shared.clock import iso
from shared.money import paise_to_rupees
from shared.states import FINAL, Status


def build_body(change: Row[Any]) -> str:
    """The body for a change of a withdrawal (a row of `fan_out.NEW_CHANGES`).

    The withdrawal may have changed since, so its failure reason and its UTR are included only with a status
    that has them.
    """
    status = Status(change.to_status)
    data = {
        "withdrawal_id": str(change.withdrawal_id),
        "user_id": change.user_id,
        "amount": change.coins_amount,
        "rupees_amount": paise_to_rupees(change.amount_paise),
        "upi_id": change.upi_id,
        "status": status,
        "previous_status": change.from_status,
        "sequence": change.sequence,
        "failure_reason": change.failure_reason if status is Status.FAILED else None,
        "utr": change.utr if status in FINAL else None,
        "created_at": iso(change.created_at),
        "changed_at": iso(change.changed_at),
    }
    event = {"type": f"withdrawal.{status}", "timestamp": data["changed_at"], "data": data}
    return json.dumps(event, ensure_ascii=False)
