"""Money is whole paise and whole coins; rupees appear only when a response is written."""

PAISE_PER_RUPEE = 100


def coins_to_paise(coins: int, coin_value_paise: int) -> int:
    """Return the value of `coins` in paise."""
    assert coins >= 0, "a withdrawal of negative coins is our bug"
    return coins * coin_value_paise


def paise_to_rupees(paise: int) -> float:
    """Return rupees for a JSON number: at most two decimals, exact to the paisa below 2**53 paise."""
    return round(paise / PAISE_PER_RUPEE, 2)


def rupees_text(paise: int) -> str:
    """Return rupees for people, with Indian grouping: 12345678 paise -> `₹1,23,456.78`."""
    sign = "-" if paise < 0 else ""
    paise = abs(paise)
    whole, rest = divmod(paise, PAISE_PER_RUPEE)
    return f"{sign}₹{grouped(whole)}.{rest:02d}"


def grouped(number: int) -> str:
    """Return a whole number for people, with Indian grouping: 123456 -> `1,23,456`."""
    sign = "-" if number < 0 else ""
    digits = str(abs(number))
    head = digits[:-3]
    tail = digits[-3:]
    pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)][::-1]
    return f"{sign}{','.join([*pairs, tail])}"
