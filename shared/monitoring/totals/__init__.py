"""Totals of withdrawals: by hour, by day in India, by UPI handle, by reason.

    counts.py        count events in any period
    daily_totals.py  totals of finished days, stored as rows and recounted after late changes
    sums.py          sums of counted rows: numbers, rates, and the time from request to paid

Each number belongs to the day on which it happened. A payout that is reversed five days later stays paid on
its day, and is reversed and refunded on the day of the reversal, so a finished day does not change. Only fees
may be reported late; `daily_totals.py` then recounts their day.
"""
