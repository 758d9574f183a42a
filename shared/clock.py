"""Times as people and clients read them. The money path asks PostgreSQL for the time, not this module."""

from datetime import UTC, datetime, timedelta, timezone

# A day is a day in India, which has one time zone and no summer time.
INDIA = timezone(timedelta(hours=5, minutes=30))


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC ending in `Z`, to the microsecond where there are any; None stays None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_iso(text: str) -> datetime:
    """The moment that `iso` wrote. Raises ValueError for anything else, a time without zone included."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    return moment
