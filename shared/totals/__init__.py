"""What withdrawals came to: by hour, by day in India, by UPI handle, by reason.

    counting.py     the one way to count, from events, for any span of time
    keeping.py      days that are over, kept as rows, and counted again when something came late
    summing.py      sums of what was counted: rates, and the time from request to paid

Each number stands on the day on which it happened. A payout that is reversed five days later stays paid on
its day, and is reversed, and refunded, on the day of the reversal: what was told of a day does not change
afterwards. Only fees are told late; `keeping.py` counts their day again.
"""
